#!/bin/sh
# Main program of a guest that walks memory of its last CPU's node without end, says the checksum each time, and does what its console tells it.
echo online_movable >/sys/devices/system/memory/auto_online_blocks
nodes=/sys/devices/system/node
echo "GUEST cpus $(nproc) nodes $(cat $nodes/online) initiators $(cat $nodes/has_generic_initiator) disk $(cat /sys/block/vda/device/../numa_node 2>/dev/null)"
last=$(($(nproc) - 1))
mkdir -p /tmp/walk
walk() {
    taskset -c $last dd if=/dev/urandom of=/tmp/walk/a bs=1M count=16 2>/dev/null
    want=$(taskset -c $last md5sum </tmp/walk/a)
    round=0
    while :; do
        taskset -c $last cp /tmp/walk/a /tmp/walk/b
        have=$(taskset -c $last md5sum </tmp/walk/b)
        round=$((round + 1))
        if [ "$have" = "$want" ] && [ "$(taskset -c $last md5sum </tmp/walk/a)" = "$want" ]; then
            echo "GUEST walk $round ok"
        else
            echo "GUEST walk $round CORRUPT $have $want"
        fi
    done
}
walk &
while read -r word size; do
    case $word in
        hold)
            mount -t tmpfs none /mnt -o size=100%
            # Whatever is free but so many MiB: then nothing can go elsewhere.
            taskset -c $last dd if=/dev/zero of=/mnt/hog bs=1M count=$(($(awk '/MemFree/ {print int($2 / 1024)}' /proc/meminfo) - size)) 2>/dev/null
            echo "GUEST holds $(du -m /mnt/hog | cut -f1) MiB"
            ;;
        free)
            umount /mnt
            echo "GUEST freed"
            ;;
        memory)
            for node in $nodes/node[0-9]*; do
                printf '%s %s ' "${node##*/}" "$(awk '/MemTotal/ {print $4}' "$node/meminfo")"
            done >/tmp/memory
            echo "GUEST memory $(cat /tmp/memory)"
            ;;
    esac
done
