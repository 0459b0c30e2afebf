#!/bin/bash
# Runs in the test host: a stock guest of 1 GiB, of which a quarter is resident, checks its memory and four disks while the limit changes. Every check prints "ok: ..." or
# ends with "FAILED: ...".
set -u
here=/payload/pager
ctl=/payload/vmmctl/vmmctl
store=/srv/disks
rounds=$(cat $here/rounds)
mkfifo /tmp/input && exec 7<>/tmp/input
: >/tmp/console
failed() {
    echo "FAILED: $*"
    tail -30 /tmp/console
    $ctl vm list
    $ctl vm memory g
    tail -20 /tmp/vmmd.log
    exit 1
}
ok() { echo "ok: $*, at $SECONDS s"; }
said() { # TEXT SECONDS: the guest says it
    local end=$((SECONDS + $2))
    until tr -d '\r' </tmp/console | grep -q "$1"; do
        ! grep -q 'GUEST failed' /tmp/console || failed "$(grep 'GUEST failed' /tmp/console)"
        [ $SECONDS -lt $end ] || failed "the guest does not say '$1'"
        sleep 0.5
    done
}
rm $here/room
mkdir -p /run/vmm $here/var /var/lib/vmm $store /tmp/tools
mount --bind $here/var /var/lib/vmm || failed "no room for the swap store"
mount -o loop $here/tools.img /tmp/tools 2>/dev/null || { modprobe loop && mount -o loop $here/tools.img /tmp/tools; } || failed "no disk with tools"
for file in /usr/bin/fio $(ldd /usr/bin/fio | grep -o '/[^ ]*'); do
    mkdir -p "/tmp/tools$(dirname "$file")" && cp -Lu "$file" "/tmp/tools$file" || failed "cp $file"
done
umount /tmp/tools
for disk in a b c d; do truncate -s 96M $store/$disk.raw; done
cp $here/tools.img $store/
cat >/tmp/g.yaml <<END
name: g
memory: {size: 1GiB, resident: 256MiB}
cpus: 2
numa: {count: 2}
boot: {kernel: $here/kernel, initrd: $here/initrd, cmdline: "console=ttyS0 panic=-1 quiet"}
disks:
$(for disk in a b c d; do echo "- {path: $store/$disk.raw, queues: 1}"; done)
- {path: $store/tools.img, readOnly: true}
END
/payload/vmmd/vmmd --start-timeout 600 --storage / >/tmp/vmmd.log 2>&1 &
vmmd=$!
for _ in $(seq 300); do $ctl vm list >/dev/null 2>&1 && break; sleep 0.2; done
$ctl vm create -f /tmp/g.yaml >/dev/null || failed "vm create"
$ctl vm start g >/tmp/said 2>&1
$ctl vm show g | grep -qE '^state: +running' || failed "vm start: $(cat /tmp/said)"
$ctl vm console g <&7 >/tmp/console 2>/dev/null &
said 'GUEST works' 900
ok "$(grep -o 'GUEST works.*' /tmp/console | tr -d '\r')"
said 'GUEST filled' 900
ok "$(grep -o 'GUEST filled.*' /tmp/console | tr -d '\r')"
$ctl vm memory g
for round in $(seq "$rounds"); do
    limit=$((192 + RANDOM % 192))
    $ctl vm memory g --resident ${limit}MiB >/dev/null || failed "vm memory --resident ${limit}MiB"
    said "GUEST round $round ok" 900
    ok "round $round with $limit MiB"
done
$ctl vm memory g
worker=$(pgrep -f vmm-worker | head -1)
echo "resident of the worker: $(awk '/RssShmem/ {print $2}' "/proc/$worker/status") KiB"
echo end >&7
said 'GUEST end' 600
grep -o 'GUEST complaints.*' /tmp/console
tr -d '\r' </tmp/console | grep -q 'GUEST complaints 0' || failed "the guest complains"
ok "nothing was lost"
kill $vmmd
wait $vmmd
echo "PAGER: OK"
