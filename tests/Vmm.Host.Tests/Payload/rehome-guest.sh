#!/bin/sh
# Runs as the guest's main program: memory of node 1 is written and read back without end, and its checksum said each time.
echo "GUEST cpus $(nproc) nodes $(cat /sys/devices/system/node/online)"
mkdir -p /tmp/walk
taskset -c 1 dd if=/dev/urandom of=/tmp/walk/a bs=1M count=24 2>/dev/null
want=$(taskset -c 1 md5sum < /tmp/walk/a)
round=0
while :; do
    taskset -c 1 cp /tmp/walk/a /tmp/walk/b
    have=$(taskset -c 1 md5sum < /tmp/walk/b)
    round=$((round + 1))
    if [ "$have" = "$want" ] && [ "$(taskset -c 1 md5sum < /tmp/walk/a)" = "$want" ]; then
        echo "GUEST walk $round ok"
    else
        echo "GUEST walk $round CORRUPT $have $want"
    fi
done
