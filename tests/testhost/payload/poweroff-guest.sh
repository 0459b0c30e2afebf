#!/bin/sh
# Main program of the guest of tests/testhost/poweroff: keeps a checksum over memory, and powers off at its button.
echo online_movable >/sys/devices/system/memory/auto_online_blocks
dd if=/dev/urandom of=/tmp-pattern bs=1M count=48 2>/dev/null
sum=$(md5sum </tmp-pattern)
echo "GUEST waits"
# The page cache of the root file system: pages that the kernel moves when a block leaves.
(
    round=0
    while [ "$(md5sum </tmp-pattern)" = "$sum" ]; do round=$((round + 1)); [ $((round % 5)) -ne 0 ] || echo "GUEST memory round $round"; done
    echo "GUEST CORRUPT in round $round"
) &
watcher=$!
dd if=/dev/input/event0 bs=24 count=1 2>/dev/null >/dev/null
echo "GUEST power button"
# Whatever holds the console open keeps /init from going on to power off.
kill "$watcher"
