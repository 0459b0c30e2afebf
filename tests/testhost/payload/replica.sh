#!/bin/bash
# Runs in the test host: a stock guest with a ledger on two disks is replicated from one vmmd to another one every 5 s. Points are started there, daemons are killed, and at last the VM goes over.
# Every check prints "ok: ..." or ends with "FAILED: ...".
set -u
here=/payload/replica
store=/srv/disks
rounds=$(cat $here/rounds)
mkfifo /tmp/input && exec 7<>/tmp/input
: >/tmp/console
. $here/two-daemons.sh

mkdir -p $store /tmp/tools $here/var /var/lib
rm $here/room
mount --bind $here/var /var/lib
modprobe loop && mount -o loop $here/tools.img /tmp/tools || failed "no disk with tools"
for file in /usr/bin/dd $(ldd /usr/bin/dd | grep -o '/[^ ]*'); do
    mkdir -p "/tmp/tools$(dirname "$file")" && cp -Lu "$file" "/tmp/tools$file" || failed "cp $file"
done
umount /tmp/tools
cp --sparse=always $here/data.qcow2 $here/log.raw $here/tools.img $here/kernel $here/initrd $store/
cat >/tmp/g.yaml <<END
name: g
memory: 256MiB
cpus: 2
boot: {kernel: $store/kernel, initrd: $store/initrd, cmdline: "console=ttyS0 panic=-1 quiet"}
rng: true
disks:
- {path: $store/data.qcow2, format: qcow2}
- {path: $store/log.raw}
- {path: $store/tools.img, readOnly: true, cache: buffered}
END
points() { ctl two replica points g -o json 2>/dev/null | tr ',{' '\n\n' | grep -c '"isLast"'; }
newest() { ctl two replica points g -o json | tr ',{' '\n\n' | sed -n 's/.*"number": *\([0-9]*\).*/\1/p' | tail -1; }
later() { # SECONDS: a newer point comes to the other site
    local from=$(newest) end=$((SECONDS + $1))
    until [ "$(newest)" != "$from" ] && [ -n "$(newest)" ]; do
        [ $SECONDS -lt $end ] || failed "no newer point: $(ctl one replica status g) $(ctl two replica points g)"
        sleep 1
    done
}
status() { # TEXT SECONDS: the primary says it
    local end=$((SECONDS + $2))
    until ctl one replica status g | grep -qE "$1"; do
        [ $SECONDS -lt $end ] || failed "replica status is not '$1': $(ctl one replica status g)"
        sleep 1
    done
}
try() { # POINT: a test failover of it says what it found
    ctl two replica test-failover g --point "$1" >/tmp/said 2>&1 || failed "test-failover: $(cat /tmp/said)"
    local vm=$(ctl two vm list | grep -o '^g-test-[0-9]*' | tail -1) end=$((SECONDS + 600))
    : >/tmp/test
    ctl two vm console "$vm" </dev/null >>/tmp/test 2>/dev/null &
    until grep -q 'GUEST recovered' /tmp/test; do
        ! grep -q 'GUEST failed' /tmp/test || failed "point $1: $(grep 'GUEST failed' /tmp/test)"
        [ $SECONDS -lt $end ] || failed "point $1 does not start: $(tail -5 /tmp/test)"
        sleep 0.5
    done
    sleep 2
    ! grep -q 'GUEST failed' /tmp/test || failed "point $1: $(grep 'GUEST failed' /tmp/test)"
    found=$(grep -o 'GUEST recovered up to [0-9]*' /tmp/test | grep -o '[0-9]*$')
    ok "point $1 as $vm: $(grep -o 'recovered.*' /tmp/test | tr -d '\r')"
    ctl two replica test-failover g --remove "$vm" >/tmp/said 2>&1 || failed "the end of the test: $(cat /tmp/said)"
    ! ctl two vm show "$vm" >/dev/null 2>&1 || failed "$vm is there still"
}
for each in one two; do start $each; done
ctl one vm create -f /tmp/g.yaml >/dev/null || failed "vm create"
start_vm one g
ctl one vm console g <&7 >>/tmp/console 2>/dev/null &
more 'GUEST wrote' 2 600
ctl one replica enable g --to https://127.0.0.1:8442 --interval 5s >/tmp/said 2>&1 || failed "replica enable: $(cat /tmp/said)"
later 300
ok "the first point is there"
before=0
for round in $(seq "$rounds"); do
    later 120
    later 120
    wrote=$(grep -o 'GUEST wrote [0-9]*' /tmp/console | tail -1 | grep -o '[0-9]*$')
    try "$(newest)"
    [ "$found" -gt $before ] && [ "$found" -le $((wrote + 1000)) ] || failed "round $round: it recovered up to $found, before $before, and the guest wrote $wrote"
    before=$found
    case $round in
        1) kill -KILL "${daemon[two]}" && wait "${daemon[two]}"; sleep 7; start two ;;
        2) kill -KILL "${daemon[one]}" && wait "${daemon[one]}"; start one; ctl one vm console g <&7 >>/tmp/console 2>/dev/null & ;;
        3) kill -STOP "${daemon[two]}"; status '(disconnected|behind)' 180; kill -CONT "${daemon[two]}"; status 'in.?sync' 180 ;;
    esac
    more 'GUEST wrote' 1 300
done
ctl one replica verify g >/tmp/said 2>&1 || failed "replica verify: $(cat /tmp/said)"
ok "verify: $(tail -1 /tmp/said)"
ctl one replica status g
! ls $store/*.vmm-replica-* >/dev/null 2>&1 || sleep 10
# A planned failover: nothing is lost.
echo end >&7
more 'GUEST end' 1 300
state one g stopped 150
ctl one replica sync-now g >/tmp/said 2>&1 || failed "sync-now: $(cat /tmp/said)"
! ls $store/*.vmm-replica-* >/dev/null 2>&1 || failed "overlays are left: $(ls $store)"
ended=$(grep -o 'GUEST ends with [0-9]*' /tmp/console | grep -o '[0-9]*$')
ctl two replica failover g >/tmp/said 2>&1 || failed "failover: $(cat /tmp/said)"
: >/tmp/console
ctl two vm console g <&7 >>/tmp/console 2>/dev/null &
more 'GUEST wrote' 1 600
found=$(grep -o 'GUEST recovered up to [0-9]*' /tmp/console | grep -o '[0-9]*$')
[ "$found" = "$ended" ] || failed "a planned failover recovered up to $found of $ended"
ok "a planned failover: all $ended records are there, and it goes on"
# The old primary is fenced.
ctl one replica sync-now g >/tmp/said 2>&1 && failed "the old primary still sends"
ctl one replica status g | grep -qi fenced || failed "the old primary is not fenced: $(ctl one replica status g)"
ok "the old primary is fenced: $(tail -1 /tmp/said)"
ctl two replica commit g >/tmp/said 2>&1 || failed "commit: $(cat /tmp/said)"
echo end >&7
more 'GUEST end' 1 300
state two g stopped 150
ctl two replica points g
for each in one two; do kill -TERM "${daemon[$each]}"; wait "${daemon[$each]}"; done
mkdir /collect/points && cp -r --sparse=always /var/lib/two/replicas/g/. /collect/points/
ok "done in the test host"
