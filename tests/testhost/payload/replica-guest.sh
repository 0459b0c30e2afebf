#!/bin/sh
# Main program of the guest of tests/testhost/replica: a ledger as databases keep one. Record N (its number and the sum of block N) goes to the log on one disk and is made stable; then block N goes to the other disk
# and is made stable. So on any two disks of one instant every block but the newest is what the log says. It looks whether that is so, then goes on where the log ends.
mkdir -p /tools /data /log
for _ in $(seq 50); do [ -b /dev/vdc ] && break; sleep 0.2; done
mount -t ext4 -o ro /dev/vdc /tools || { echo "GUEST failed: no tools"; exit; }
for folder in lib lib64 usr; do ln -s /tools/$folder /$folder; done
mount -t ext4 /dev/vda /data && mount -t ext4 /dev/vdb /log || { echo "GUEST failed: mount"; exit; }
kept=24 # blocks: N is in file N % kept
stable() { /usr/bin/dd if=/run.block of="$1" bs=64k conv=fsync 2>/dev/null || echo "GUEST failed: write $1"; }
last=0
if [ -s /log/records ]; then
    # The newest record may be torn: it was not made stable yet.
    last=$(sed -n 's/^\([0-9]*\) \([0-9a-f]\{32\}\)$/\1/p' /log/records | tail -1)
    last=${last:-0}
    checked=0
    number=$((last > kept - 1 ? last - kept + 2 : 1))
    while [ $number -lt "$last" ]; do
        wanted=$(sed -n "s/^$number //p" /log/records | head -1)
        found=$(md5sum </data/block$((number % kept)) | cut -d' ' -f1)
        [ "$wanted" = "$found" ] || echo "GUEST failed: block $number is $found, and the log, which ends with $last, says $wanted"
        number=$((number + 1))
        checked=$((checked + 1))
    done
    echo "GUEST recovered up to $last, $checked blocks are as the log says"
else
    echo "GUEST begins"
fi
worker() {
    number=$last
    while [ ! -e /run.end ]; do
        number=$((number + 1))
        head -c $((4096 * (1 + number % 16))) /dev/urandom >/run.block
        sum=$(md5sum </run.block | cut -d' ' -f1)
        cp /run.block /run.content
        echo "$number $sum" >/run.block
        /usr/bin/dd if=/run.block of=/log/records oflag=append conv=notrunc,fsync 2>/dev/null || { echo "GUEST failed: log"; break; }
        cp /run.content /run.block
        stable /data/block$((number % kept))
        [ $((number % 10)) != 0 ] || echo "GUEST wrote $number"
        sleep 0.1
    done
    echo "GUEST ends with $number"
    : >/run.ended
}
worker &
while read -r word; do
    [ "$word" != end ] || break
done
: >/run.end
while [ ! -e /run.ended ]; do sleep 0.2; done
umount /data && umount /log || echo "GUEST failed: umount"
echo "GUEST end"
