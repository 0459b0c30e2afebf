#!/bin/bash
# Runs in the test host: a guest under vmmd with two qcow2 disks on a small file system, which is filled while fio works. Every check prints "ok: ..." or ends with
# "FAILED: ...".
set -u
here=/payload/disks
ctl=/payload/vmmctl/vmmctl
store=/srv/disks
mkfifo /tmp/input && exec 7<>/tmp/input
: >/tmp/console
failed() {
    echo "FAILED: $*"
    tail -30 /tmp/console
    $ctl vm list
    df -m $store
    tail -20 /tmp/vmmd.log
    exit 1
}
ok() { echo "ok: $*, at $SECONDS s"; }
said() { # TEXT SECONDS: the guest says it
    local end=$((SECONDS + $2))
    until tr -d '\r' </tmp/console | grep -q "$1"; do
        ! grep -q 'GUEST failed' /tmp/console || failed "$(grep 'GUEST failed' /tmp/console)"
        [ $SECONDS -lt $end ] || failed "the guest does not say '$1'"
        sleep 0.5
    done
}
state() { # TEXT SECONDS: vmmd says it of the VM
    local end=$((SECONDS + $2))
    until $ctl vm show g | grep -qE "$1"; do
        [ $SECONDS -lt $end ] || failed "the VM is not '$1': $($ctl vm show g)"
        sleep 0.5
    done
}
rounds() { tr -d '\r' </tmp/console | grep -c 'GUEST round [0-9]* ok'; }
more() { # COUNT SECONDS: so many rounds of fio are over from now on
    local wanted=$(($(rounds) + $1)) end=$((SECONDS + $2))
    until [ "$(rounds)" -ge $wanted ]; do
        ! grep -q 'GUEST failed' /tmp/console || failed "$(grep 'GUEST failed' /tmp/console)"
        [ $SECONDS -lt $end ] || failed "$(rounds) rounds of fio, not $wanted"
        sleep 0.5
    done
}

mkdir -p /run/vmm /var/lib/vmm $store /tmp/tools
modprobe loop && mount -o loop $here/host.img $store || failed "no file system"
cp $here/base.qcow2 $store/
$ctl disk convert $here/plain.raw $store/plain.qcow2 --from raw >/dev/null || failed "disk convert"
$ctl disk create $store/over.qcow2 --backing base.qcow2 --backing-format qcow2 >/dev/null || failed "disk create --backing"
# fio with what it links, from this host, on a disk of its own.
mount -o loop $here/tools.img /tmp/tools || failed "no disk with tools"
cp $here/vmm-guest-agent /tmp/tools/ || failed "no guest agent"
for file in /usr/bin/fio $(ldd /usr/bin/fio | grep -o '/[^ ]*'); do
    mkdir -p "/tmp/tools$(dirname "$file")" && cp -Lu "$file" "/tmp/tools$file" || failed "cp $file"
done
umount /tmp/tools
cat >/tmp/g.yaml <<END
name: g
memory: 384MiB
cpus: 2
boot: {kernel: $here/kernel, initrd: $here/initrd, cmdline: "console=ttyS0 panic=-1 quiet"}
vsock: {cid: 5, path: /run/vmm/g.vsock}
disks:
- {path: $store/plain.qcow2, format: qcow2, queues: 2}
- {path: $store/over.qcow2, format: qcow2}
- {path: $here/tools.img, readOnly: true, cache: buffered}
END
before=$(dmesg | wc -l)
/payload/vmmd/vmmd --start-timeout 600 --storage / >/tmp/vmmd.log 2>&1 &
daemon=$!
for _ in $(seq 300); do $ctl vm list >/dev/null 2>&1 && break; sleep 0.2; done
$ctl vm create -f /tmp/g.yaml >/dev/null || failed create
$ctl vm start g >/tmp/said 2>&1
state '^state: +running' 5
$ctl vm console g <&7 >/tmp/console 2>&1 &
console=$!
said "GUEST has fio" 900
ok "$(grep -o 'GUEST has.*' /tmp/console | tr -d '\r')"
said "GUEST works" 900
ok "$(grep -o 'GUEST works.*' /tmp/console | tr -d '\r')"
more 2 900
ok "fio has written and verified $(rounds) times on both disks"

# Snapshots amid that, the first of a guest whose agent froze its file systems; then the images between are made superfluous. Nothing of it fails.
took() { # WORDS...: a command of vmmctl amid fio
    local began=$SECONDS
    $ctl "$@" >/tmp/said 2>&1 || failed "vmmctl $*: $(cat /tmp/said)"
    ok "vmmctl $*, $((SECONDS - began)) s: $(tail -1 /tmp/said)"
}
more 1 900 # the agent is there by now
took vm agent g
took vm snapshot g --name one --quiesce-required --quiesce-limit 60
cp --sparse=always $store/plain.qcow2 /collect/frozen.plain.qcow2 && cp --sparse=always $store/over.qcow2 /collect/frozen.over.qcow2 || failed "cp"
more 1 900
took vm snapshot g --name two
more 1 900
took vm stream g disk0 --base $store/plain.qcow2
took vm stream g disk1
for between in plain.one over over.one base; do [ -e $store/$between.qcow2 ] || failed "$between is gone"; done
rm $store/plain.one.qcow2 $store/over.qcow2 $store/over.one.qcow2 # nobody needs them any more
more 2 900
ok "fio has written and verified $(rounds) times"

# And once more, but now the tops go into the images below them, which become the disks again.
took vm snapshot g --name three
more 1 900
took vm commit g disk0
took vm commit g disk1 --delete
[ -e $store/plain.three.qcow2 ] && [ ! -e $store/over.three.qcow2 ] || failed "what is left of the committed images: $(ls $store)"
$ctl vm show g -o json | grep -q 'three' && failed "the VM still names what was committed: $($ctl vm show g)"
rm $store/plain.three.qcow2
more 2 900
ok "fio has written and verified $(rounds) times"

# The host's file system is full amid that, and new files need room.
echo grow >&7
fallocate -l $(($(stat -f -c '%a * %S' $store) - (6 << 20))) $store/ballast || failed "no ballast"
state '^waits for: +disk[01] \(/srv/disks/(plain|over).two.qcow2\): no space left' 900
fallocate -l $(($(stat -f -c '%a * %S' $store))) $store/rest 2>/dev/null # it may be nothing
state '^state: +paused' 30
ok "$($ctl vm show g | sed -n 's/^waits for: */waits for /p')"
stands=$(rounds)
sleep 5
[ "$(rounds)" = "$stands" ] || failed "the guest goes on without space"
rm -f $store/ballast $store/rest
state '^state: +running' 60
ok "it goes on by itself"
more 2 900
ok "fio has written and verified $(rounds) times"

echo end >&7
said "GUEST end" 900
tr -d '\r' </tmp/console | grep -q "GUEST complaints 0" || failed "its kernel complains: $(grep -A20 'GUEST complaints' /tmp/console)"
tr -d '\r' </tmp/console | grep -q "GUEST agent errors 0" || failed "its agent complains: $(grep -A20 'GUEST agent errors' /tmp/console)"
tr -d '\r' </tmp/console | grep -q "GUEST base ok" || failed "what the base has"
ok "$(tr -d '\r' </tmp/console | sed -n 's/^GUEST verified/verified again/p'); its kernel has no complaint"
state '^state: +(stopped|defined)' 60
$ctl vm logs g >/tmp/logs 2>&1
[ "$(grep -c 'disk-waits' /tmp/logs)" -ge 1 ] && [ "$(grep -c 'disk-goes-on' /tmp/logs)" -ge 1 ] || failed "no events: $(cat /tmp/logs)"
! grep -q 'disk-file-gone' /tmp/logs || failed "an image that no disk needs is missed: $(grep disk-file-gone /tmp/logs)"
! grep -q 'disk-error' /tmp/logs || failed "a disk's error: $(grep disk-error /tmp/logs)"
kill $console 2>/dev/null
kill -TERM $daemon
wait $daemon
dmesg | tail -n +$((before + 1)) | grep -iE 'bug:|call trace' && failed "the host's kernel complains"
cp --sparse=always $store/*.qcow2 /collect/
ok "done in the test host"
