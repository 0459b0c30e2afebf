#!/bin/sh
# Runs as the demo guest's main program (busybox shell in an initramfs): shows what the guest sees and proves its disk.
echo "DEMO: $(uname -sr) on $(nproc) CPUs"
for node in /sys/devices/system/node/node[0-9]*; do
    total=$(awk '/MemTotal/ {print $4}' "$node/meminfo")
    free=$(awk '/MemFree/ {print $4}' "$node/meminfo")
    echo "DEMO: ${node##*/}: cpus $(cat "$node/cpulist"), $total kB total, $free kB free, distances $(cat "$node/distance")"
done

disk=/dev/vda
size=$(cat /sys/block/vda/size)
echo "DEMO: $disk has $size sectors, serial '$(cat /sys/block/vda/serial)'"
dd if=/dev/urandom of=/tmp/pattern bs=1M count=8 2>/dev/null
dd if=/tmp/pattern of=$disk bs=1M seek=4 conv=fsync 2>/dev/null
echo 3 > /proc/sys/vm/drop_caches
dd if=$disk of=/tmp/back bs=1M skip=4 count=8 2>/dev/null
if cmp /tmp/pattern /tmp/back; then
    echo "DEMO: wrote 8 MiB of random data to $disk, read it back, and it is the same"
    echo "DEMO: OK"
else
    echo "DEMO: FAILED, $disk gave other data back"
fi
