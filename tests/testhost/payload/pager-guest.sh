#!/bin/sh
# Main program of the guest of tests/testhost/pager: fio writes and verifies 560 MiB of memory and four disks at once, round by round, until it is told to end.
mkdir -p /tools /memory
for _ in $(seq 50); do [ -b /dev/vde ] && break; sleep 0.2; done
mount -t ext4 -o ro /dev/vde /tools || { echo "GUEST failed: no tools"; exit; }
for folder in lib lib64 usr; do ln -s /tools/$folder /$folder; done
mount -t tmpfs -o size=640m none /memory || { echo "GUEST failed: no tmpfs"; exit; }
lines=$(dmesg | wc -l)
echo "GUEST works on $(uname -r), $(nproc) cpus, $(awk '/MemTotal/ {print $2}' /proc/meminfo) KiB"
fill() { # FILE: 8 MiB of random content, 69 times with a number in front, so that no two pages are alike
    [ -e /seed ] || dd if=/dev/urandom of=/seed bs=1M count=8 2>/dev/null
    for number in $(seq 69); do
        { printf '%016d' "$number"; tail -c +17 /seed; } >"/memory/$number"
        md5sum "/memory/$number"
    done >/sums
}
fill
echo "GUEST filled $(awk '/Shmem:/ {print $2}' /proc/meminfo) KiB"
round=0
while [ ! -e /run.end ]; do
    round=$((round + 1))
    set -- --rw=randwrite --bsrange=4k-256k --size=24M --direct=1 --ioengine=libaio --iodepth=8 --verify=crc32c --verify_fatal=1 --randseed=$round
    for disk in a b c d; do set -- "$@" --name=$disk --filename=/dev/vd$disk; done
    /usr/bin/fio "$@" >/tmp/fio 2>&1 || { echo "GUEST failed: fio: $(cat /tmp/fio)"; exit; }
    md5sum -cs /sums || { echo "GUEST failed: memory: $(md5sum -c /sums 2>&1 | grep -v ': OK')"; exit; }
    mv "/memory/$((1 + round % 69))" /memory/moved && cp /memory/moved "/memory/$((1 + round % 69))" && rm /memory/moved
    echo "GUEST round $round ok"
    read -r -t 1 word && [ "$word" = end ] && break
done
dmesg | tail -n +$((lines + 1)) | grep -iE 'warn|bug:|call trace|error|fail|stall|lockup|hung|timeout' >/run.complaints
echo "GUEST complaints $(wc -l </run.complaints)"
cat /run.complaints
echo "GUEST end"
