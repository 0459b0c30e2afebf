#!/bin/sh
# Runs as the guest's main program: says what it sees in lines that the tests read.
echo "GUEST kernel $(uname -r)"
echo "GUEST cpus $(nproc)"
for node in /sys/devices/system/node/node[0-9]*; do
    echo "GUEST node ${node##*node} cpus $(cat "$node/cpulist") kb $(awk '/MemTotal/ {print $4}' "$node/meminfo") distance $(cat "$node/distance")"
done
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
    echo "GUEST place ${cpu##*cpu} socket $(cat "$cpu/topology/physical_package_id") siblings $(cat "$cpu/topology/thread_siblings_list") package $(cat "$cpu/topology/package_cpus_list")"
done
for node in /sys/devices/system/node/node[0-9]*/access0/initiators; do
    [ -e "$node/read_latency" ] && echo "GUEST performance $(echo "$node" | tr -dc '0-9/' | cut -d/ -f6) latency $(cat "$node/read_latency") bandwidth $(cat "$node/read_bandwidth")"
done
if [ -b /dev/vda ]; then
    echo "GUEST disk serial $(cat /sys/block/vda/serial) sectors $(cat /sys/block/vda/size)"
    dd if=/dev/urandom of=/tmp/pattern bs=1M count=1 2>/dev/null
    dd if=/tmp/pattern of=/dev/vda bs=1M seek=1 conv=fsync 2>/dev/null
    echo 3 > /proc/sys/vm/drop_caches
    dd if=/dev/vda of=/tmp/back bs=1M skip=1 count=1 2>/dev/null
    cmp /tmp/pattern /tmp/back && echo "GUEST disk verified"
fi
[ -c /dev/hwrng ] && [ "$(dd if=/dev/hwrng bs=64 count=1 2>/dev/null | wc -c)" = 64 ] && echo "GUEST hwrng ok"
echo "GUEST interrupts $(grep -c virtio /proc/interrupts)"
# Fill a part of every node so that the host can see where the memory lies.
mkdir -p /tmp/fill
for cpu in $(seq 0 $(($(nproc) - 1))); do
    taskset -c "$cpu" dd if=/dev/zero of=/tmp/fill/$cpu bs=1M count=4 2>/dev/null
done
echo "GUEST dmesg begin"
# Every byte on the serial port is an exit: only lines that could be a complaint go out, and how many there were.
echo "GUEST lines $(dmesg | wc -l)"
dmesg | grep -iE 'warn|error|bug|fail|invalid|conflict|claim|bogus|call trace|cut here'
echo "GUEST dmesg end"
echo "GUEST ready"
[ -e /hold ] || grep -q hold /proc/cmdline && sleep 4
echo "GUEST done"
