#!/bin/bash
# Runs in the test host: a guest under vmmd with qemu-ga in it. Every check prints "ok: ..." or ends with "FAILED: ...".
set -u
here=/payload/agent
ctl=/payload/vmmctl/vmmctl
: >/tmp/console
failed() {
    echo "FAILED: $*"
    tail -30 /tmp/console
    $ctl vm list
    tail -20 /tmp/vmmd.log
    exit 1
}
ok() { echo "ok: $*, at $SECONDS s"; }
said() { # TEXT SECONDS: the guest says it
    local end=$((SECONDS + $2))
    until tr -d '\r' </tmp/console | grep -q "$1"; do
        [ $SECONDS -lt $end ] || failed "the guest does not say '$1'"
        sleep 0.5
    done
}
ticks() { tr -d '\r' </tmp/console | grep -c 'GUEST tick'; }
answers() { # SECONDS
    local end=$((SECONDS + $1))
    until $ctl vm agent g | grep -q '^agent: *qemu-ga'; do
        [ $SECONDS -lt $end ] || failed "no agent: $($ctl vm agent g)"
        sleep 1
    done
}
console() {
    $ctl vm console g </tmp/input >>/tmp/console 2>&1 &
}
vmmd() {
    /payload/vmmd/vmmd --storage / >>/tmp/vmmd.log 2>&1 &
    daemon=$!
    for _ in $(seq 300); do $ctl vm list >/dev/null 2>&1 && return; sleep 0.2; done
    failed "no vmmd"
}
mkfifo /tmp/input && exec 7<>/tmp/input
mkdir -p /run/vmm /var/lib/vmm /srv/g
cp --sparse=always $here/root.img /srv/g/
cat >/tmp/g.yaml <<END
name: g
memory: 256MiB
boot: {kernel: $here/kernel, initrd: $here/initrd, cmdline: "console=ttyS0 panic=-1 quiet"}
guestAgent: true
disks: [{path: /srv/g/root.img}]
END
vmmd
$ctl vm create -f /tmp/g.yaml --start >/dev/null || failed create
console
said "GUEST ports org.qemu.guest_agent.0" 900
said "GUEST tick 3 " 300
answers 300
ok "it answers: $($ctl vm agent g | head -1)"
$ctl vm guest g >/tmp/guest || failed "vm guest"
grep -q '^host name: *stock' /tmp/guest && grep -q '127.0.0.1/8' /tmp/guest && grep -qE '^/disk +ext4' /tmp/guest || failed "vm guest says $(cat /tmp/guest)"
ok "vm guest: $(grep -E '^(host name|kernel)' /tmp/guest | tr -s ' ' | tr '\n' ' ')"
$ctl vm exec g -- /bin/sh -c 'echo out; echo errors >&2; exit 7' >/tmp/out 2>/tmp/errors
code=$?
[ "$code $(cat /tmp/out) $(cat /tmp/errors)" = "7 out errors" ] || failed "exec: $code $(cat /tmp/out /tmp/errors)"
ok "vm exec: exit code, output and errors come back"
$ctl vm exec g -- head -c 1000000 /dev/urandom >/tmp/out || failed "exec of a million bytes"
[ "$(stat -c %s /tmp/out)" = 1000000 ] || failed "exec: $(stat -c %s /tmp/out) bytes of a million"
ok "vm exec: a million bytes"
$ctl vm exec g -- /nowhere 2>/tmp/errors && failed "exec of what is not there"
grep -q 'refuses' /tmp/errors || failed "exec: $(cat /tmp/errors)"

$ctl vm snapshot g --name one --quiesce-required >/tmp/out 2>&1 || failed "snapshot: $(cat /tmp/out)"
$ctl vm logs g | grep -q 'quiesced: 1 file system' || failed "not quiesced: $($ctl vm logs g | tail -3)"
before=$(ticks)
sleep 5
[ "$(ticks)" -gt "$before" ] || failed "it does not go on after the snapshot"
ok "a snapshot with the file system frozen by it"

# A vmmd that dies with a frozen guest: a REST client freezes by a snapshot that cannot be over, so the death is made at the agent itself.
$ctl vm exec g -- /bin/sh -c 'fsfreeze --freeze /disk 2>/dev/null; echo asked' >/dev/null 2>&1
kill -9 $daemon
wait $daemon 2>/dev/null
vmmd
answers 120
ok "another vmmd finds it"
console

$ctl vm save g /srv/g/saved >/tmp/out 2>&1 || failed "save: $(cat /tmp/out)"
sleep 20
$ctl vm restore /srv/g/saved >/tmp/out 2>&1 || failed "restore: $(cat /tmp/out)"
console
answers 120
for _ in $(seq 30); do
    late=$(($(date +%s) - $($ctl vm exec g -- date +%s)))
    [ $late -le 3 ] && break
    sleep 1
done
[ $late -le 3 ] || failed "the guest's clock is $late s behind after the restore"
ok "saved, restored 20 s later: the agent answers, and the guest's clock is $late s behind"

$ctl vm stop g --graceful --timeout 120 >/tmp/out 2>&1 || failed "stop: $(cat /tmp/out)"
tr -d '\r' </tmp/console | grep -q 'GUEST shutdown' || failed "nobody asked the agent to shut down"
said "GUEST complaints 0" 10
ok "a graceful stop of a guest that does not heed the power button, by its agent"
