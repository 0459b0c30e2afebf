#!/bin/sh
# Main program of the guest of tests/testhost/freeze: writes to two file systems without end, the inner one mounted in the outer, and tells twice a second how far it is.
for _ in $(seq 50); do [ -b /dev/vdb ] && break; sleep 0.2; done
mkdir -p /disk
mount -t ext4 /dev/vda /disk && mount -t ext4 /dev/vdb /disk/inner || { echo "GUEST cannot mount"; exit; }
lines=$(dmesg | wc -l)
agent() { /disk/vmm-guest-agent 2>>/run.agent & }
writer() { # place
    number=0
    while [ ! -e /run.stop ]; do
        number=$((number + 1))
        dd if=/dev/urandom of="$1/file$((number % 20))" bs=64k count=2 conv=fsync 2>/dev/null
        echo $number >"/run.$2"
    done
    : >"/run.stopped.$2"
}
ticker() {
    tick=0
    while [ ! -e /run.stop ]; do
        tick=$((tick + 1))
        echo "GUEST tick $tick outer $(cat /run.outer) inner $(cat /run.inner)"
        sleep 0.5
    done
}
echo 0 >/run.outer
echo 0 >/run.inner
: >/run.agent
agent
writer /disk outer &
writer /disk/inner inner &
ticker &
while read -r word; do
    case $word in
    kill) # the agent itself, its parent is this shell; the watch is its child
        for process in $(pidof vmm-guest-agent); do
            grep -q "^PPid:[[:space:]]*$$\$" "/proc/$process/status" && kill -9 "$process"
        done
        sleep 2
        agent
        echo "GUEST killed the agent"
        ;;
    end) break ;;
    esac
done
: >/run.stop
while [ ! -e /run.stopped.outer ] || [ ! -e /run.stopped.inner ]; do sleep 0.2; done
dmesg | tail -n +$((lines + 1)) | grep -iE 'warn|bug:|call trace|error|fail|stall|lockup|hung' >/run.complaints
echo "GUEST complaints $(wc -l </run.complaints)"
cat /run.complaints
echo "GUEST agent errors $(wc -l </run.agent)"
cat /run.agent
killall vmm-guest-agent
umount /disk/inner
umount /disk
echo "GUEST end"
