#!/bin/bash
# Runs in the test host: a file that Debian guests map as persistent memory. Every check prints "ok: ..." or ends with "FAILED: ...".
set -u
here=/payload/pmem
vmmctl=/payload/vmmctl/vmmctl
failed() { echo "FAILED: $*"; tail -30 /tmp/console 2>/dev/null; cat /tmp/errors 2>/dev/null; exit 1; }
run() { # image, read-only or not
    cat >/tmp/vm.yaml <<END
memory: 256MiB
boot: {kernel: $here/kernel, initrd: $here/initrd, cmdline: "console=ttyS0 quiet panic=-1"}
devices: [{kind: pmem, path: $1, readOnly: $2}]
END
    timeout -k 5 200 "$vmmctl" run -f /tmp/vm.yaml </dev/null >/tmp/console 2>/tmp/errors
}
before=$(dmesg | wc -l)
cp $here/image /tmp/image
run /tmp/image false || failed "vmmctl ended with $?"
grep -q "GUEST pmem0 16777216 bytes" /tmp/console || failed "no /dev/pmem0 of 16 MiB"
sum=$(sed -n 's/.*GUEST wrote \([0-9a-f]*\).*/\1/p' /tmp/console)
[ -n "$sum" ] || failed "the guest did not write"
grep -q "GUEST dax" /tmp/console && echo "ok: mounted with DAX" || echo "ok: mounted, without DAX: $(grep -m1 -i dax /tmp/console)"
image=$(md5sum </tmp/image)
run /tmp/image true || failed "read-only: vmmctl ended with $?"
grep -q "GUEST found $sum" /tmp/console || failed "the second guest does not find it"
[ "$(md5sum </tmp/image)" = "$image" ] || failed "a read-only file changed"
echo "ok: a second guest finds it, and a read-only file stays as it is"
truncate -s 17M /tmp/odd
run /tmp/odd false && failed "a file of odd length was taken"
grep -q "multiple of 2 MiB" /tmp/errors || failed "no word of 2 MiB"
dmesg | tail -n +$((before + 1)) | grep -iE 'bug:|call trace' && failed "the host's kernel complains"
cp /tmp/image /collect/image
echo "$sum" >/collect/sum
echo "ok: done in the test host"
