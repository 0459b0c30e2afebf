#!/bin/bash
# Runs in the test host: a stock guest that works on memory and two disks moves between two vmmd, to and fro. Every check prints "ok: ..." or ends with "FAILED: ...".
set -u
here=/payload/migrate
store=/srv/disks
rounds=$(cat $here/rounds)
mkfifo /tmp/input && exec 7<>/tmp/input
: >/tmp/console
. $here/two-daemons.sh

mkdir -p $store /tmp/tools
modprobe loop && mount -o loop $here/tools.img /tmp/tools || failed "no disk with tools"
for file in /usr/bin/fio $(ldd /usr/bin/fio | grep -o '/[^ ]*'); do
    mkdir -p "/tmp/tools$(dirname "$file")" && cp -Lu "$file" "/tmp/tools$file" || failed "cp $file"
done
umount /tmp/tools
cp --sparse=always $here/plain.qcow2 $here/data.raw $here/tools.img $here/kernel $here/initrd $store/
cat >/tmp/g.yaml <<END
name: g
memory: 384MiB
cpus: 2
numa: {count: 2}
boot: {kernel: $store/kernel, initrd: $store/initrd, cmdline: "console=ttyS0 panic=-1 quiet"}
rng: true
disks:
- {path: $store/plain.qcow2, format: qcow2, queues: 2}
- {path: $store/data.raw}
- {path: $store/tools.img, readOnly: true, cache: buffered}
END
for each in one two; do start $each; done
ctl one vm create -f /tmp/g.yaml >/dev/null || failed "vm create"
start_vm one g
ctl one vm console g <&7 >>/tmp/console 2>/dev/null &
more 'GUEST works' 1 600
ok "$(grep -o 'GUEST works.*' /tmp/console | tr -d '\r')"
more 'GUEST round [0-9]* ok' 1 900
from=one to=two
for round in $(seq "$rounds"); do
    ctl $from vm migrate g --to https://127.0.0.1:${port[$to]} --max-downtime 2s --timeout 15m >/tmp/said 2>&1 || failed "round $round, vm migrate: $(cat /tmp/said)"
    ! ctl $from vm show g >/dev/null 2>&1 || failed "round $round: vmmd $from has the VM still"
    ctl $to vm show g | grep -qE '^state: +running' || failed "round $round: the VM does not run at $to"
    ctl $to vm console g <&7 >>/tmp/console 2>/dev/null &
    more 'GUEST tick' 2 300
    more 'GUEST round [0-9]* ok' 1 900
    ok "round $round, $from to $to: $(tail -1 /tmp/said | tr -d '\r')"
    [ "$(pgrep -c vmm-worker)" -le 4 ] || failed "workers are left: $(pgrep -a vmm-worker)" # one with the VM, and those kept ready
    read -r from to <<<"$to $from"
done
# The link is cut amid a move, and comes back: one of both has the VM, and it goes on. `vmmctl` asks by unix sockets.
runs() { ctl "$1" vm show g 2>/dev/null | grep -qE '^state: +running'; }
for after in 0.3 1.5 4; do
    ctl $from vm migrate g --to https://127.0.0.1:${port[$to]} --max-downtime 2s --timeout 15m >/tmp/cut 2>&1 &
    move=$!
    sleep $after
    ip link set lo down
    sleep 25
    ! { runs one && runs two; } || failed "the link is cut after $after s, and both run the VM"
    ip link set lo up
    wait $move && moved="it went over all the same" || moved="it stays: $(tail -1 /tmp/cut | tr -d '\r' | cut -c1-150)"
    for _ in $(seq 120); do { runs one || runs two; } && break; sleep 1; done
    if runs $to; then
        ! ctl $from vm show g >/dev/null 2>&1 || failed "cut after $after s: both have the VM"
        ctl $to vm console g <&7 >>/tmp/console 2>/dev/null &
        read -r from to <<<"$to $from"
    else
        runs $from || failed "cut after $after s: nobody runs the VM"
        ! ctl $to vm show g >/dev/null 2>&1 || failed "cut after $after s: both have the VM"
    fi
    more 'GUEST tick' 2 300
    more 'GUEST round [0-9]* ok' 1 900
    ok "the link was cut after $after s for 25 s; $moved"
done
echo end >&7
more 'GUEST end' 1 900
state $from g stopped 150
tr -d '\r' </tmp/console | grep GUEST >/tmp/guest
# Ticks go forwards, and neither clock jumps by more than the guest stood still.
sed -n 's/^.*GUEST tick \([0-9]*\) uptime \([0-9]*\)[.0-9]* date \([0-9]*\)$/\1 \2 \3/p' /tmp/guest | awk '
    NR > 1 && ($1 <= tick || $2 < up || $3 < date) { print "from " tick " " up " " date " to " $1 " " $2 " " $3; bad = 1 }
    { tick = $1; up = $2; date = $3 } END { exit bad }' >/tmp/jumps || failed "its clocks go backwards: $(cat /tmp/jumps)"
grep -qE 'GUEST verified [1-9][0-9]* files' /tmp/guest || failed "$(grep 'GUEST verified' /tmp/guest)"
grep -q 'GUEST complaints 0' /tmp/guest || failed "its kernel complains: $(grep -A20 'GUEST complaints' /tmp/console)"
ok "$(grep -o 'GUEST verified.*' /tmp/guest); fio has written and verified $(count 'GUEST round [0-9]* ok') times; its kernel has no complaint"
cp $store/plain.qcow2 $store/data.raw /collect/
ok "done in the test host"
