#!/bin/bash
# Runs in the test host: a guest under vmmd with two qcow2 disks, which are backed up while fio works. Every check prints "ok: ..." or ends with "FAILED: ...".
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
daemon() {
    /payload/vmmd/vmmd --storage / >>/tmp/vmmd.log 2>&1 &
    daemon=$!
    for _ in $(seq 300); do $ctl vm list >/dev/null 2>&1 && break; sleep 0.2; done
}
daemon
$ctl vm create -f /tmp/g.yaml >/dev/null || failed create
$ctl vm start g >/dev/null || failed start
$ctl vm console g <&7 >/tmp/console 2>&1 &
console=$!
said "GUEST has fio" 900
ok "$(grep -o 'GUEST has.*' /tmp/console | tr -d '\r')"
said "GUEST works" 900
ok "$(grep -o 'GUEST works.*' /tmp/console | tr -d '\r')"
more 2 900
ok "fio has written and verified $(rounds) times on both disks"

points=$store/points
took() { # WORDS...: a command of vmmctl amid fio
    local began=$SECONDS
    $ctl "$@" >/tmp/said 2>&1 || failed "vmmctl $*: $(cat /tmp/said)"
    ok "vmmctl $*, $((SECONDS - began)) s: $(tail -1 /tmp/said)"
}
took vm agent g
for point in 1 2 3; do
    took backup create g --to $points --quiesce-required --quiesce-limit 60
    grep -q "point $point is in" /tmp/said || failed "no point $point: $(cat /tmp/said)"
    ! ls $store/*.vmm-backup-* >/dev/null 2>&1 || failed "overlays are left: $(ls $store)"
    more 1 900
done
$ctl backup list $points
took backup verify $points

# vmmd is killed amid a backup: the old points are there, the VM goes on in overlays, and the next backup merges them.
$ctl backup create g --to $points --rate 2MiB >/tmp/slow 2>&1 &
slow=$!
for _ in $(seq 600); do [ -e $points/.part-000004 ] && break; sleep 0.1; done
[ -e $points/.part-000004 ] || failed "the slow backup does not begin: $(cat /tmp/slow)"
kill -KILL $daemon
wait $daemon
wait $slow && failed "the backup of a daemon that was killed succeeds"
[ "$(ls $points | tr '\n' ' ')" = "000001 000002 000003 " ] || failed "points after the kill: $(ls $points)"
ls $store/*.vmm-backup-* >/dev/null || failed "the VM has no overlays"
kill $console 2>/dev/null
daemon
state '^state: +running' 60
$ctl vm console g <&7 >>/tmp/console 2>&1 &
console=$!
ok "vmmd was killed amid a backup"
more 1 900
took backup create g --to $points --quiesce-required --quiesce-limit 60
! ls $store/*.vmm-backup-* >/dev/null 2>&1 || failed "overlays are left: $(ls $store)"
$ctl vm show g -o json | grep -q 'vmm-backup' && failed "the VM still names an overlay"
ok "the next backup merged what was left"
more 2 900

echo end >&7
said "GUEST end" 900
tr -d '\r' </tmp/console | grep -q "GUEST complaints 0" || failed "its kernel complains: $(grep -A20 'GUEST complaints' /tmp/console)"
tr -d '\r' </tmp/console | grep -q "GUEST base ok" || failed "what the base has"
ok "$(tr -d '\r' </tmp/console | sed -n 's/^GUEST verified/verified again/p'); its kernel has no complaint"
state '^state: +(stopped|defined)' 60
took backup create g --to $points
took backup verify $points
$ctl backup list $points
for point in 1 2 3 4 5; do
    took backup restore $points@$point --to /tmp/restored.$point
    for disk in disk0 disk1; do mv /tmp/restored.$point/$disk.qcow2 /collect/$point.$disk.qcow2 || failed "no $disk of point $point"; done
done
took backup prune $points --keep 2
took backup verify $points
$ctl backup list $points
kill $console 2>/dev/null
kill -TERM $daemon
wait $daemon
dmesg | tail -n +$((before + 1)) | grep -iE 'bug:|call trace' && failed "the host's kernel complains"
# The base comes along: over stands on it.
cp --sparse=always $store/plain.qcow2 $store/over.qcow2 $store/base.qcow2 /collect/
ok "done in the test host"
