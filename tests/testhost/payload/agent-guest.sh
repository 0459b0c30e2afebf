#!/bin/sh
# Main program of the guest of tests/testhost/agent: qemu-ga on the port of its name, and a writer on the disk that it freezes, which tells twice a second how far it is.
for _ in $(seq 50); do [ -b /dev/vda ] && break; sleep 0.2; done
mkdir -p /disk /var/run /etc
mount -t ext4 /dev/vda /disk || { echo "GUEST failed: mount"; exit; }
for folder in lib lib64 usr; do ln -s /disk/$folder /$folder; done
hostname stock
ip link set lo up
# No udev here: the link to the port is its rule's work.
mkdir -p /dev/virtio-ports
for _ in $(seq 50); do
    for port in /sys/class/virtio-ports/*; do
        [ -e "$port/name" ] && ln -sf "/dev/${port##*/}" "/dev/virtio-ports/$(cat "$port/name")"
    done
    [ -e /dev/virtio-ports/org.qemu.guest_agent.0 ] && break
    sleep 0.2
done
echo "GUEST ports $(ls /dev/virtio-ports)"
lines=$(dmesg | wc -l)
# Powering off is busybox's part here: the agent looks for /sbin/shutdown.
mkdir -p /sbin
printf '#!/bin/sh\necho "GUEST shutdown $*"\n: >/run.end\n' >/sbin/shutdown && chmod 755 /sbin/shutdown
/usr/sbin/qemu-ga -m virtio-serial -p /dev/virtio-ports/org.qemu.guest_agent.0 -t /var/run -f /var/run/qga.pid 2>/run.agent &
tick=0
while [ ! -e /run.end ]; do
    tick=$((tick + 1))
    echo $tick >/disk/tick && sync /disk/tick
    echo "GUEST tick $tick $(date +%s)"
    sleep 0.5
done
dmesg | tail -n +$((lines + 1)) | grep -iE 'warn|bug:|call trace|error|fail|stall|lockup|hung' >/run.complaints
echo "GUEST complaints $(wc -l </run.complaints)"
cat /run.complaints /run.agent
killall qemu-ga
cd / && umount /disk 2>/dev/null
echo "GUEST end"
