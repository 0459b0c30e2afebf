#!/bin/bash
# Runs in the test host: a Debian guest with the guest agent, whose vsock freeze.py asks. Every check prints "ok: ..." or ends with "FAILED: ...".
set -u
here=/payload/freeze
vmmctl=/payload/vmmctl/vmmctl
failed() { echo "FAILED: $*"; tail -40 /tmp/console 2>/dev/null; cat /tmp/errors 2>/dev/null; exit 1; }
ok() { echo "ok: $*"; }
said() { # text, seconds
    for _ in $(seq $(($2 * 2))); do
        grep -q "$1" /tmp/console && return
        kill -0 "$vm" 2>/dev/null || return 1
        sleep 0.5
    done
    return 1
}
cp --sparse=always $here/outer $here/inner /tmp/
mkfifo /tmp/input && exec 7<>/tmp/input
cat >/tmp/vm.yaml <<END
name: frozen
cpus: 1
memory: 256MiB
boot: {kernel: $here/kernel, initrd: $here/initrd, cmdline: "console=ttyS0 panic=-1"}
disks: [{path: /tmp/outer, serial: outer}, {path: /tmp/inner, serial: inner}]
vsock: {cid: 5, path: /tmp/vsock}
END
: >/tmp/console
"$vmmctl" run -f /tmp/vm.yaml <&7 >/tmp/console 2>/tmp/errors &
vm=$!
said "GUEST tick 3 " 600 || failed "the guest did not come up"
python3 $here/freeze.py || failed "see above"
echo end >&7
said "GUEST end" 120 || failed "the guest does not end"
wait $vm || failed "vmmctl ended with $?"
tr -d '\r' </tmp/console | grep -q "GUEST complaints 0" || failed "its kernel complains: $(grep -A20 'GUEST complaints' /tmp/console)"
tr -d '\r' </tmp/console | grep -q "GUEST agent errors 0" || failed "the agent complains: $(grep -A20 'GUEST agent errors' /tmp/console)"
ok "its kernel and its agent have no complaint"
mv /tmp/*.frozen /tmp/*.running /collect/
