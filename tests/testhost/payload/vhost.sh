#!/bin/bash
# Runs in the test host: a Debian guest on a tap, once with vhost-net and once without; pings and 16 MiB each way. Every check prints "ok: ..." or ends with "FAILED: ...".
set -u
here=/payload/vhost
vmmctl=/payload/vmmctl/vmmctl
failed() { echo "FAILED: $*"; tail -20 /tmp/console 2>/dev/null; cat /tmp/errors 2>/dev/null; exit 1; }
said() { for _ in $(seq $(($2 * 5))); do grep -q "$1" /tmp/console 2>/dev/null && return; sleep 0.2; done; return 1; }
ip tuntap add tap0 mode tap vnet_hdr && ip addr add 192.0.2.1/24 dev tap0 && ip link set tap0 up || failed "no tap"
dd if=/dev/urandom of=/tmp/data bs=1M count=16 2>/dev/null
sum=$(md5sum </tmp/data | cut -d' ' -f1)
# How often threads of the VMM woke that are neither vCPUs nor the kernel's: what an interrupt costs when it is not the kernel's alone.
wakes() {
    local task count=0 own
    for task in /proc/"$1"/task/*; do
        case $(cat "$task/comm" 2>/dev/null) in
            "" | vcpu* | vhost-*) ;;
            *) own=$(awk '/^voluntary/ {print $2}' "$task/status" 2>/dev/null) && count=$((count + ${own:-0})) ;;
        esac
    done
    echo $count
}
run() { # on or off
    local pid start begin sent_before woke_before woke
    : >/tmp/console
    sent_before=$(cat /sys/class/net/tap0/statistics/tx_bytes)
    timeout -k 5 200 "$vmmctl" run --cpus 1 --memory 256MiB --kernel $here/kernel --initrd $here/initrd --net "tap=tap0,vhost=$1" \
        --cmdline "console=ttyS0 quiet panic=-1" </dev/null >/tmp/console 2>/tmp/errors &
    start=$!
    said "GUEST listens" 120 || failed "vhost=$1: the guest does not get there"
    grep -q "GUEST ping ok" /tmp/console || failed "vhost=$1: ping"
    pid=$(pgrep -P $start -x 'vmm-run|vmmctl') # an older vmmctl is the VM itself
    case $1 in
        on) grep -lq vhost- /proc/"$pid"/task/*/comm || failed "no thread of vhost in the process"; ls -l /proc/"$pid"/fd | grep -q vhost-net || failed "no vhost-net" ;;
        off) ! grep -lq vhost- /proc/"$pid"/task/*/comm || failed "a thread of vhost" ;;
    esac
    begin=$(date +%s%N)
    woke_before=$(wakes "$pid")
    busybox nc 192.0.2.2 5000 </tmp/data || failed "vhost=$1: sending to the guest"
    said "GUEST got" 60 || failed "vhost=$1: the guest does not have it"
    woke=$(($(wakes "$pid") - woke_before))
    grep -q "GUEST got 16777216 $sum" /tmp/console || failed "vhost=$1: $(grep 'GUEST got' /tmp/console)"
    # An open input: at the end of it, busybox hangs up on the sender.
    timeout 60 busybox nc -l -p 5001 < <(exec sleep 60) >/tmp/back || failed "vhost=$1: nothing came back"
    [ "$(md5sum </tmp/back | cut -d' ' -f1)" = "$sum" ] || failed "vhost=$1: what came back is not the same: $(wc -c </tmp/back) bytes, $(cmp /tmp/data /tmp/back 2>&1)"
    echo "ok: vhost=$1: ping without loss, 16 MiB there and back unchanged in $((($(date +%s%N) - begin) / 1000000)) ms, tap sent $(($(cat /sys/class/net/tap0/statistics/tx_bytes) - sent_before)) bytes, threads of the VMM woke $woke times for what the guest got"
    wait $start || failed "vhost=$1: vmmctl ended with $?"
}
before=$(dmesg | wc -l)
[ -c /dev/vhost-net ] || failed "this host has no /dev/vhost-net"
run off
run on
cat >/tmp/both.yaml <<END
boot: {kernel: $here/kernel}
nets: [{tap: tap0, vhost: on, limits: {operations: 10}}]
END
"$vmmctl" run -f /tmp/both.yaml 2>&1 | grep "knows no limits" || failed "vhost with limits was taken"
mv /dev/vhost-net /dev/vhost-gone
"$vmmctl" run --memory 64MiB --kernel $here/kernel --net tap=tap0,vhost=on </dev/null 2>&1 | grep "vhost_net" || failed "no word of a missing vhost_net"
dmesg | tail -n +$((before + 1)) | grep -iE 'bug:|call trace' && failed "the host's kernel complains"
echo "ok: done"
