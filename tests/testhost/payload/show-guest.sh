#!/bin/sh
# Main program of the guest of tests/testhost/systemd: has an address, writes and reads back a disk that comes, waits for its power button.
ip addr add 192.0.2.11/24 dev eth0
ip link set eth0 up
echo "GUEST waits"
(
    until [ -b /dev/vda ]; do sleep 0.2; done
    dd if=/dev/urandom of=/pattern bs=64k count=16 2>/dev/null
    dd if=/pattern of=/dev/vda bs=64k conv=fsync 2>/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    dd if=/dev/vda of=/back bs=64k count=16 2>/dev/null
    cmp /pattern /back && echo "GUEST disk verified"
    while [ -b /dev/vda ]; do sleep 0.2; done
    echo "GUEST disk gone, complaints: $(dmesg | grep -ciE 'warn|bug:|call trace|virtio.*(fail|error)|acpi.*error')"
) &
watcher=$!
dd if=/dev/input/event0 bs=24 count=1 2>/dev/null >/dev/null
echo "GUEST power button"
# Whatever holds the console open keeps /init from going on to power off.
kill "$watcher" 2>/dev/null
