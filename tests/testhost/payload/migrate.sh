#!/bin/bash
# Runs in the test host: a stock guest that works on memory and two disks moves between two vmmd, to and fro. Every check prints "ok: ..." or ends with "FAILED: ...".
set -u
here=/payload/migrate
store=/srv/disks
rounds=$(cat $here/rounds)
mkfifo /tmp/input && exec 7<>/tmp/input
: >/tmp/console
ctl() { # one|two ARGUMENTS...
    local socket=/run/$1/vmmd.sock
    shift
    /payload/vmmctl/vmmctl --host "$socket" "$@"
}
failed() {
    echo "FAILED: $*"
    tail -20 /tmp/console
    for each in one two; do
        ctl $each vm list
        ctl $each vm show g
        tail -25 /tmp/$each.log
    done
    exit 1
}
ok() { echo "ok: $*, at $SECONDS s"; }
count() { tr -d '\r' </tmp/console | grep -c "$1"; }
more() { # TEXT COUNT SECONDS: the guest says it so often from now on
    local wanted=$(($(count "$1") + $2)) end=$((SECONDS + $3))
    until [ "$(count "$1")" -ge $wanted ]; do
        ! grep -q 'GUEST failed' /tmp/console || failed "$(grep 'GUEST failed' /tmp/console)"
        [ $SECONDS -lt $end ] || failed "the guest does not say '$1'"
        sleep 0.5
    done
}

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
start() { # one|two PORT: a vmmd with folders of its own; the other one may ask it for moves
    local other=two
    [ "$1" = one ] || other=one
    mkdir -p /run/"$1" /var/lib/"$1"
    cat >/tmp/"$1".yaml <<END
listen: https://127.0.0.1:$2
certificate: $here/$1.crt
key: $here/$1.key
clientCa: $here/ca.crt
peers: {certificate: $here/$1.crt, key: $here/$1.key, ca: $here/ca.crt}
principals:
  - {name: $other, role: peer, certificate: "sha256:$(cat $here/$other.print)"}
END
    /payload/vmmd/vmmd --config /tmp/"$1".yaml --state /var/lib/"$1" --run /run/"$1" --storage $store >/tmp/"$1".log 2>&1 &
    for _ in $(seq 600); do ctl "$1" vm list >/dev/null 2>&1 && return; sleep 0.2; done
    failed "vmmd $1 does not answer"
}
declare -A port=([one]=8441 [two]=8442)
for each in one two; do start $each ${port[$each]}; done
ctl one vm create -f /tmp/g.yaml >/dev/null || failed "vm create"
for _ in 1 2 3; do # a start has 60 s, and an emulator without processor time may need more
    ctl one vm start g >/tmp/said 2>&1 && break
    grep -q 'was not built and started within' /tmp/said || break
done
ctl one vm show g | grep -qE '^state: +running' || failed "vm start: $(cat /tmp/said)"
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
echo end >&7
more 'GUEST end' 1 900
for _ in $(seq 300); do ctl $from vm show g | grep -qE '^state: +stopped' && break; sleep 0.5; done
ctl $from vm show g | grep -qE '^state: +stopped' || failed "the guest does not power off"
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
