#!/bin/sh
# Main program of the guest of tests/testhost/migrate: fio writes files on two disks and verifies them, a file in memory is rewritten and summed, and a clock ticks, until it is told to end.
mkdir -p /tools /plain /raw /memory
for _ in $(seq 50); do [ -b /dev/vdc ] && break; sleep 0.2; done
mount -t ext4 -o ro /dev/vdc /tools || { echo "GUEST failed: no tools"; exit; }
for folder in lib lib64 usr; do ln -s /tools/$folder /$folder; done
mount -t ext4 /dev/vda /plain && mount -t ext4 /dev/vdb /raw && mount -t tmpfs -o size=64m tmpfs /memory || { echo "GUEST failed: mount"; exit; }
lines=$(dmesg | wc -l)
both() { # FILE OPTIONS...: on both disks at a time, random parts of 4 to 64 KiB, verified afterwards
    local file=$1
    shift
    set -- --rw=randwrite --bsrange=4k-64k --size=4M --direct=1 --ioengine=libaio --iodepth=8 --fsync=32 --verify=crc32c --verify_fatal=1 --randseed=17 "$@"
    /usr/bin/fio "$@" --name=plain --filename="/plain/$file" --name=raw --filename="/raw/$file" >/tmp/fio 2>&1 \
        || { echo "GUEST failed: fio: $(cat /tmp/fio)"; return 1; }
}
worker() {
    round=0
    while [ ! -e /run.end ]; do
        round=$((round + 1))
        rm -f "/plain/file$((round % 3))" "/raw/file$((round % 3))"
        both file$((round % 3)) || break
        echo "GUEST round $round ok"
    done
    : >/run.ended
}
dirtier() { # 16 MiB of memory, written anew and read again, all the time
    head -c 16M /dev/urandom >/memory/first
    sum=$(md5sum </memory/first)
    while [ ! -e /run.end ]; do
        cp /memory/first /memory/second && cp /memory/second /memory/first
        [ "$(md5sum </memory/first)" = "$sum" ] || { echo "GUEST failed: memory"; break; }
    done
    : >/run.dirty
}
ticker() {
    tick=0
    while [ ! -e /run.end ]; do
        tick=$((tick + 1))
        echo "GUEST tick $tick uptime $(cut -d' ' -f1 /proc/uptime) date $(date +%s)"
        sleep 1
    done
}
nodes=$(ls -d /sys/devices/system/node/node* | wc -l)
worker &
dirtier &
ticker &
echo "GUEST works on $(uname -r), $(nproc) cpus, $nodes nodes"
while read -r word; do
    [ "$word" != end ] || break
done
: >/run.end
while [ ! -e /run.ended ] || [ ! -e /run.dirty ]; do sleep 0.2; done
echo 3 >/proc/sys/vm/drop_caches
count=0
for path in /plain/file*; do
    both "${path##*/}" --verify_only && count=$((count + 1))
done
echo "GUEST verified $count files on each disk"
umount /plain && umount /raw || echo "GUEST failed: umount"
dmesg | tail -n +$((lines + 1)) | grep -viE "clocksource: .*tsc|tsc: marking tsc unstable|clocksource: timekeeping watchdog" | grep -iE 'warn|bug:|call trace|error|fail|stall|lockup|hung|timeout' >/run.complaints
echo "GUEST complaints $(wc -l </run.complaints)"
cat /run.complaints
echo "GUEST end"
