#!/bin/sh
# Main program of the guests of tests/testhost/service: joins the network, talks to the other guest, tells of its memory, heeds the power button.
word() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"; }
# Memory that comes at run time is used at once, and can be given back.
echo online_movable >/sys/devices/system/memory/auto_online_blocks
ip link set lo up
ip addr add "$(word address)/24" dev eth0
ip link set eth0 up
echo "GUEST $(word name) up, $(nproc) cpus, kernel $(uname -r)"
for _ in $(seq 60); do
    ping -c 2 -W 2 "$(word peer)" >/tmp/ping 2>&1 && break
    sleep 1
done
grep -q ' 0% packet loss' /tmp/ping && echo "GUEST ping ok" || echo "GUEST ping failed: $(tail -2 /tmp/ping)"
if [ -b /dev/vda ] && mount -t ext4 /dev/vda /mnt; then
    for folder in dev proc sys; do mount --rbind "/$folder" "/mnt/$folder"; done
    mount -t tmpfs none /mnt/run && mkdir -p /mnt/run/sshd /dev/pts && mount -t devpts none /dev/pts
    chroot /mnt /usr/sbin/sshd -o UsePAM=no >/dev/null 2>&1 && echo "GUEST sshd"
    chroot /mnt /usr/sbin/vmm-guest-agent >/dev/null 2>&1 &
fi
if [ -b /dev/vdb ]; then
    dd if=/dev/urandom of=/tmp/pattern bs=64k count=16 2>/dev/null
    dd if=/tmp/pattern of=/dev/vdb bs=64k conv=fsync 2>/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    dd if=/dev/vdb of=/tmp/back bs=64k count=16 2>/dev/null
    cmp /tmp/pattern /tmp/back && echo "GUEST disk verified"
fi
echo "GUEST complaints $(dmesg | grep -ciE 'warn|bug:|call trace|virtio.*(fail|error)|acpi.*error')"
memory() {
    for node in /sys/devices/system/node/node[0-9]*; do
        printf '%s %s ' "${node##*/}" "$(awk '/MemTotal/ {print $4}' "$node/meminfo")"
    done
}
# A line each time the sizes of the nodes change, until the button is pressed.
(
    last=
    while :; do
        now=$(memory)
        [ "$now" = "$last" ] || echo "GUEST memory $now"
        last=$now
        sleep 1
    done
) &
watcher=$!
dd if=/dev/input/event0 bs=24 count=1 2>/dev/null >/dev/null
echo "GUEST power button"
# Whatever holds the console open keeps /init from going on to power off.
kill "$watcher"
