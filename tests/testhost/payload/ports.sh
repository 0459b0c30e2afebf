#!/bin/bash
# Runs in the test host: a stock guest under vmmd whose disks and network devices are behind PCI Express root ports. Each step waits until the guest has exactly
# the devices that it should have; at the end the guest's kernel has nothing to complain about. Prints a line for each step and `result: ok`.
set -u
here=/payload/ports
ctl=/payload/vmmctl/vmmctl
mkfifo /tmp/nothing && exec 7<>/tmp/nothing # an input that stays open and says nothing
mkdir -p /run/vmm /var/lib/vmm /tmp/disks
/payload/vmmd/vmmd --storage / >/tmp/vmmd.log 2>&1 &
daemon=$!
for _ in $(seq 300); do $ctl vm list >/dev/null 2>&1 && break; sleep 0.2; done
for serial in boot hot next; do truncate -s 16M /tmp/disks/$serial.raw; done
boot="boot: {kernel: $here/kernel, initrd: $here/initrd, cmdline: \"console=ttyS0 panic=-1\"}" up=180
if [ -f $here/disk ]; then
    mkdir -p /usr/share/OVMF
    cp $here/OVMF_*.fd /usr/share/OVMF/
    mv $here/disk /tmp/disks/boot.raw
    boot='boot: {firmware: uefi}' up=300
fi
ip tuntap add dev tap0 mode tap vnet_hdr && ip link set tap0 up || exit 1
cat >/tmp/g.yaml <<END
name: g
memory: 256MiB
cpus: 2
hotplug: pcie
$boot
disks: [{path: /tmp/disks/boot.raw, serial: boot}]
END

failed() {
    echo "failed: $1"
    grep 'GUEST kernel\|GUEST complains\|GUEST waits' /tmp/console
    tail -3 /tmp/console
    tail -20 /tmp/vmmd.log
    exit 1
}
listen() {
    $ctl vm console g <&7 >>/tmp/console 2>&1 &
    console=$!
}
has() { # SECONDS DISKS NETS
    local end=$((SECONDS + $1)) wanted="GUEST has disks: $2 nets: $3"
    until tr -d '\r' <<<"$(tail -3 /tmp/console)" | grep -qx "$wanted"; do
        [ $SECONDS -lt $end ] || failed "the guest does not say '$wanted'"
        sleep 0.2
    done
    echo "ok: disks $2, network devices $3"
}
attach() { # ADDRESS OPTIONS...
    local said
    said=$($ctl vm attach g "${@:2}" --temporary) && [[ $said == *" at $1 "* ]] || { echo "$said"; return 1; }
}
step() { # TEXT COMMAND...
    local text=$1 begin=$SECONDS
    shift
    "$@" || failed "$text: exit code $?"
    echo "ok: $text, $((SECONDS - begin)) s"
}

: >/tmp/console
$ctl vm create -f /tmp/g.yaml >/dev/null || failed create
$ctl vm start g >/dev/null || failed start
listen
has $up boot 0
step "attach a disk" attach 02:00.0 --disk /tmp/disks/hot.raw,serial=hot
has 60 "boot hot" 0
grep -q 'GUEST wrote hot' /tmp/console || failed "the guest did not write its new disk"
step "attach a network device" attach 03:00.0 --net tap=tap0
has 60 "boot hot" 1
step "detach the disk" $ctl vm detach g disk1 --timeout 60 --temporary
has 30 boot 1
step "detach the network device" $ctl vm detach g net0 --timeout 60 --temporary
has 30 boot 0
step "attach into the same port" attach 02:00.0 --disk /tmp/disks/next.raw,serial=next
has 60 "boot next" 0
step "save" $ctl vm save g /tmp/saved
kill $console 2>/dev/null
step "restore" $ctl vm restore /tmp/saved
listen
has 60 "boot next" 0
step "take it by force" $ctl vm detach g disk2 --timeout 0 --force --temporary
has 60 boot 0
step "attach behind that" attach 02:00.0 --disk /tmp/disks/hot.raw,serial=hot
has 60 "boot hot" 0
step "detach it" $ctl vm detach g disk3 --timeout 60 --temporary
has 30 boot 0
tr -d '\r' </tmp/console | sed -n 's/^GUEST kernel: //p'
! grep 'GUEST complains' /tmp/console || failed "the guest complains"
[ "$(stat -c %s /tmp/disks/hot.raw)" = $((16 << 20)) ] && cmp -s -n 1048576 /tmp/disks/hot.raw /dev/zero && failed "nothing was written to hot.raw"
$ctl vm stop g >/dev/null || failed stop
kill $console 2>/dev/null
kill -TERM $daemon
echo "result: ok"
