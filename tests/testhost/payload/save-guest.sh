#!/bin/sh
# Main program of the guest of tests/testhost/save: writes its disk with checksums, pings, draws random numbers, holds memory, and tells of it twice a second.
# Memory that comes at run time is used at once.
echo online_movable >/sys/devices/system/memory/auto_online_blocks
mount -t tmpfs -o size=120m none /tmp
for _ in $(seq 50); do [ -b /dev/vda ] && break; sleep 0.2; done
ip link set lo up
ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up
mkdir -p /disk && mount -t ext4 /dev/vda /disk || { echo "GUEST cannot mount"; exit; }
for _ in $(seq 100); do [ "$(awk '/MemTotal/ {print $2}' /proc/meminfo)" -gt 230000 ] && break; sleep 0.2; done
# Content that has to last: 80 MiB of memory.
dd if=/dev/urandom of=/tmp/keep bs=1M count=80 2>/dev/null
md5sum /tmp/keep >/run.memory
lines=$(dmesg | wc -l)
writer() {
    number=0
    while [ ! -e /run.stop ]; do
        while [ -e /run.hold ]; do : >/run.held; sleep 0.1; done
        number=$((number + 1))
        name=/disk/file$((number % 40))
        # The name in the list changes only when the content is on the disk.
        dd if=/dev/urandom of=/run.new bs=64k count=8 2>/dev/null
        sum=$(md5sum </run.new | cut -d' ' -f1)
        cp /run.new "$name.new" && sync && mv "$name.new" "$name" && echo "$sum" >"$name.sum" && sync
        echo "$number" >/run.number
    done
    : >/run.stopped
}
drawer() {
    while [ ! -e /run.stop ]; do
        dd if=/dev/hwrng of=/run.drawn bs=16 count=1 2>/dev/null && echo x >>/run.draws
        sleep 0.3
    done
}
ticker() {
    tick=0
    while [ ! -e /run.stop ]; do
        tick=$((tick + 1))
        echo "GUEST tick $tick uptime $(cut -d' ' -f1 /proc/uptime) date $(date +%s)"
        sleep 0.5
    done
}
check() { # all that the disk holds, from the disk
    echo 3 >/proc/sys/vm/drop_caches
    files=0
    for sum in /disk/*.sum; do
        [ "$(md5sum <"${sum%.sum}" | cut -d' ' -f1)" = "$(cat "$sum")" ] || { bad="$bad ${sum%.sum}"; continue; }
        files=$((files + 1))
    done
}
writer &
drawer &
ticker &
echo "GUEST works on $(uname -r), $(nproc) cpus, $(awk '/MemTotal/ {print $2}' /proc/meminfo) KiB"
while read -r word round; do
    case $word in
    check)
        : >/run.hold # so that no file is half way between content and checksum
        while [ ! -e /run.held ]; do sleep 0.1; done
        bad=''
        check
        md5sum -cs /run.memory || bad="$bad memory"
        ping -c 3 -W 5 192.0.2.1 >/tmp/ping 2>&1 || bad="$bad ping"
        [ -z "$bad" ] && echo "GUEST checked $round ok, $files files" || echo "GUEST checked $round failed:$bad"
        rm -f /run.hold /run.held
        ;;
    end) break ;;
    esac
done
: >/run.stop
while [ ! -e /run.stopped ]; do sleep 0.2; done
bad=''
check
[ -z "$bad" ] && echo "GUEST disk ok, $files files, $(cat /run.number) written" || echo "GUEST disk failed:$bad"
md5sum -cs /run.memory && echo "GUEST memory ok" || echo "GUEST memory failed"
[ "$(wc -l </run.draws)" -gt 3 ] && echo "GUEST rng ok" || echo "GUEST rng failed"
echo "GUEST clocksource $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
# The TSC runs while a machine is being saved, its kvmclock does not: a kernel that watches one by the other stops to trust the TSC, and keeps kvm-clock.
dmesg | tail -n +$((lines + 1)) | grep -viE "clocksource: .*tsc|tsc: marking tsc unstable|clocksource: timekeeping watchdog" | grep -iE 'warn|bug:|call trace|error|fail|stall|lockup|hung|unstable|skew|timeout' >/run.complaints
echo "GUEST complaints $(wc -l </run.complaints)"
cat /run.complaints
umount /disk
echo "GUEST end"
