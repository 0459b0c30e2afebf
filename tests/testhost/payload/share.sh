#!/bin/bash
# Runs in the test host: folders that a Debian guest mounts. Every check prints "ok: ..." or ends with "FAILED: ...".
set -u
here=/payload/share
vmmctl=/payload/vmmctl/vmmctl
failed() { echo "FAILED: $*"; tail -40 /tmp/console 2>/dev/null; cat /tmp/errors 2>/dev/null; exit 1; }
within() { # SECONDS WHAT COMMAND...
    local end=$((SECONDS + $1)); shift
    local what=$1; shift
    until "$@"; do [ $SECONDS -lt $end ] || failed "$what"; sleep 0.5; done
}
said() { grep -q "$1" /tmp/console; }
programs() { pgrep -f 'virtiofsd --fd=3' || true; }
gone() { [ -z "$(programs)" ]; }
tar -C $here/programs -c . | tar -C / -x --skip-old-files --keep-directory-symlink
before=$(dmesg | wc -l)
mkdir -p /share/data /share/web
dd if=/dev/urandom of=/share/web/in bs=64k count=128 2>/dev/null
sum=$(md5sum </share/web/in | cut -d' ' -f1)
timeout -k 5 400 "$vmmctl" run --kernel $here/kernel --initrd $here/initrd --memory 256MiB --cpus 2 --cmdline "console=ttyS0 quiet panic=-1" \
    --share /share/data --share /share/web,tag=www,ro </dev/null >/tmp/console 2>/tmp/errors &
vm=$!
within 200 "the guest does not work on its folders" said "GUEST ready"
said "GUEST found $sum" || failed "the guest does not read what the host wrote"
wrote=$(sed -n 's/.*GUEST wrote \([0-9a-f]*\).*/\1/p' /tmp/console)
[ -n "$wrote" ] && [ "$(md5sum </share/data/out | cut -d' ' -f1)" = "$wrote" ] || failed "the host does not find what the guest wrote"
[ "$(stat -c %U:%a /share/data/folder/moved)" = root:640 ] && [ "$(readlink /share/data/link)" = moved ] || failed "names and modes are not the guest's"
echo "ok: checksums of what the guest read and wrote, names, modes, links"
said "GUEST read-only: .*Read-only file system" || failed "the read-only folder is written"
[ "$(md5sum </share/web/in | cut -d' ' -f1)" = "$sum" ] && [ "$(ls /share/web)" = in ] || failed "the read-only folder changed"
echo "ok: read only is refused"
# shellcheck disable=SC2046 # several numbers
kill -KILL $(programs)
within 60 "the guest hangs" said "GUEST lost: .*not connected"
within 120 "the guest does not get its folder back" said "GUEST again $sum"
wait $vm || failed "vmmctl ended with $?"
grep -q "is lost: it ended" /tmp/errors && grep -q "is back" /tmp/errors || failed "nothing was said of the loss"
echo "ok: killed amid its work: ENOTCONN, and the next mount works"
within 20 "a virtiofsd is left" gone
dmesg | tail -n +$((before + 1)) | grep -iE 'bug:|call trace' && failed "the host's kernel complains"
said "Call Trace" && failed "the guest's kernel complains"
echo "ok: done in the test host"
