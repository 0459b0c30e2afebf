#!/bin/sh
# Main program of the guest of tests/testhost/disks: fio writes files on two disks and verifies them, round by round, until it is told to end. Files are few, and taken
# back in between; told to grow, it writes new ones.
mkdir -p /tools /plain /over
for _ in $(seq 50); do [ -b /dev/vdc ] && break; sleep 0.2; done
mount -t ext4 -o ro /dev/vdc /tools || { echo "GUEST failed: no tools"; exit; }
for folder in lib lib64 usr; do ln -s /tools/$folder /$folder; done
echo "GUEST has $(/usr/bin/fio --version)"
/tools/vmm-guest-agent >/run.agent 2>&1 &
mount -t ext4 /dev/vda /plain && mount -t ext4 /dev/vdb /over || { echo "GUEST failed: mount"; exit; }
lines=$(dmesg | wc -l)
mkdir /plain/work /over/work
both() { # FILE OPTIONS...: on both disks at a time, random parts of 4 to 64 KiB, verified afterwards
    local file=$1
    shift
    set -- --rw=randwrite --bsrange=4k-64k --size=4M --direct=1 --ioengine=libaio --iodepth=8 --fsync=32 --verify=crc32c --verify_fatal=1 --randseed=14 "$@"
    /usr/bin/fio "$@" --name=plain --filename="/plain/work/$file" --name=over --filename="/over/work/$file" >/tmp/fio 2>&1 \
        || { echo "GUEST failed: fio: $(cat /tmp/fio)"; return 1; }
}
worker() {
    round=0
    grown=0
    while [ ! -e /run.end ]; do
        round=$((round + 1))
        if [ -e /run.grow ] && [ $grown -lt 10 ]; then
            grown=$((grown + 1))
            file=grown$grown
        else
            file=file$((round % 3))
            rm -f "/plain/work/$file" "/over/work/$file"
            [ $((round % 3)) != 0 ] || { fstrim /plain && fstrim /over; }
        fi
        both $file || break
        echo "GUEST round $round ok"
    done
    : >/run.ended
}
worker &
echo "GUEST works on $(uname -r), $(nproc) cpus"
while read -r word; do
    case $word in
    grow) : >/run.grow ;;
    end) break ;;
    esac
done
: >/run.end
while [ ! -e /run.ended ]; do sleep 0.2; done
echo 3 >/proc/sys/vm/drop_caches
count=0
for path in /plain/work/*; do
    both "${path##*/}" --verify_only && count=$((count + 1))
done
echo "GUEST verified $count files on each disk"
(cd /over && md5sum -cs sums) && echo "GUEST base ok" || echo "GUEST base failed"
killall vmm-guest-agent # what writes to this script's output would keep the guest up
echo "GUEST agent errors $(wc -l </run.agent)"
umount /plain && umount /over || echo "GUEST failed: umount"
dmesg | tail -n +$((lines + 1)) | grep -viE "clocksource: .*tsc|tsc: marking tsc unstable|clocksource: timekeeping watchdog" | grep -iE 'warn|bug:|call trace|error|fail|stall|lockup|hung|timeout' >/run.complaints
echo "GUEST complaints $(wc -l </run.complaints)"
cat /run.complaints
echo "GUEST end"
