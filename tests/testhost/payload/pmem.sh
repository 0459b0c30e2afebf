#!/bin/bash
# Runs in the test host: a file that a Debian guest maps as persistent memory. Every check prints "ok: ..." or ends with "FAILED: ...".
set -u
here=/payload/pmem
vmmctl=/payload/vmmctl/vmmctl
failed() { echo "FAILED: $*"; tail -30 /tmp/console 2>/dev/null; cat /tmp/errors 2>/dev/null; exit 1; }
truncate -s 64M /tmp/image && mke2fs -q -t ext4 -b 4096 /tmp/image || failed "no image"
run() { # read-only or not
    cat >/tmp/vm.yaml <<END
memory: 256MiB
boot: {kernel: $here/kernel, initrd: $here/initrd, cmdline: "console=ttyS0 quiet panic=-1"}
devices: [{kind: pmem, path: /tmp/image, readOnly: $1}]
END
    timeout -k 5 200 "$vmmctl" run -f /tmp/vm.yaml </dev/null >/tmp/console 2>/tmp/errors || failed "readOnly=$1: vmmctl ended with $?"
    grep -q "GUEST pmem0 67108864 bytes" /tmp/console || failed "readOnly=$1: no /dev/pmem0 of 64 MiB"
}
before=$(dmesg | wc -l)
run false
grep -q "GUEST wrote" /tmp/console || failed "the guest did not write"
sum=$(sed -n 's/.*GUEST wrote \([0-9a-f]*\).*/\1/p' /tmp/console)
e2fsck -fn /tmp/image >/tmp/fsck 2>&1 || failed "the file system is damaged: $(cat /tmp/fsck)"
[ "$(debugfs -R 'cat /file' /tmp/image 2>/dev/null | md5sum | cut -d' ' -f1)" = "$sum" ] || failed "the host does not find in the file what the guest wrote"
grep -q "GUEST dax" /tmp/console && echo "ok: mounted with DAX" || echo "ok: mounted without DAX (this kernel has none for it)"
echo "ok: what the guest wrote and flushed is in the file, and the file system is sound"
image=$(md5sum </tmp/image)
run true
grep -q "GUEST found $sum" /tmp/console || failed "the second guest does not find it"
[ "$(md5sum </tmp/image)" = "$image" ] || failed "a read-only file changed"
echo "ok: a second guest finds it, and a read-only file stays as it is"
truncate -s 65M /tmp/odd
sed -i 's|/tmp/image|/tmp/odd|' /tmp/vm.yaml
"$vmmctl" run -f /tmp/vm.yaml </dev/null 2>&1 | grep "multiple of 2 MiB" || failed "a file of odd length was taken"
dmesg | tail -n +$((before + 1)) | grep -iE 'bug:|call trace' && failed "the host's kernel complains"
echo "ok: done"
