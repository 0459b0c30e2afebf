#!/bin/sh
# Main program of the guests of tests/testhost/pmem: writes a file into persistent memory, or reads it where it is there already.
for _ in $(seq 50); do [ -b /dev/pmem0 ] && break; sleep 0.2; done
echo "GUEST pmem0 $(($(cat /sys/block/pmem0/size) * 512)) bytes"
mkdir -p /m
if mount -t ext4 -o ro /dev/pmem0 /m 2>/dev/null && [ -f /m/file ]; then
    echo "GUEST found $(md5sum </m/file | cut -d' ' -f1)"
    exit
fi
umount /m 2>/dev/null
mount -t ext4 -o dax /dev/pmem0 /m && echo "GUEST dax" || mount -t ext4 /dev/pmem0 /m || { echo "GUEST cannot mount"; exit; }
dd if=/dev/urandom of=/m/file bs=64k count=64 2>/dev/null
sync
echo "GUEST wrote $(md5sum </m/file | cut -d' ' -f1)"
umount /m
