#!/bin/bash
# Runs in the test host, whose control groups are v2: two micro-guests that want all the CPU time there is, one with a quota. Every check prints "ok: ..." or ends with "FAILED: ...".
set -u
here=/payload/cpu
vmmctl() { /payload/vmmctl/vmmctl "$@"; }
failed() { echo "FAILED: $*"; tail -20 /tmp/vmmd.log; exit 1; }
start() {
    /payload/vmmd/vmmd --storage /payload >>/tmp/vmmd.log 2>&1 &
    daemon=$!
    for _ in $(seq 300); do vmmctl vm list >/dev/null 2>&1 && return; sleep 0.2; done
    failed "vmmd does not answer"
}
spent() { vmmctl vm stats "$1" -o json | sed 's/.*"cpuMilliseconds":\([0-9]*\).*/\1/'; }

grep -qw cpu /sys/fs/cgroup/cgroup.controllers || failed "no controller cpu: $(cat /sys/fs/cgroup/cgroup.controllers)"
start
for name in free bounded; do
    printf 'name: %s\nmemory: 64MiB\nboot: {kernel: %s/spin.elf, cmdline: ticks=0}\n' $name $here >/tmp/$name.yaml
done
echo 'cpuQuota: 25%' >>/tmp/bounded.yaml
echo 'cpuWeight: 50' >>/tmp/bounded.yaml
for name in free bounded; do vmmctl vm create -f /tmp/$name.yaml --start || failed "$name does not start"; done
group=$(sed -n 's/^0:://p' "/proc/$(vmmctl vm show bounded -o json | sed 's/.*"workerProcessId":\([0-9]*\).*/\1/')/cgroup")
[ "$(cat "/sys/fs/cgroup$group/cpu.max")" = "25000 100000" ] || failed "cpu.max of $group is $(cat "/sys/fs/cgroup$group/cpu.max")"
[ "$(cat "/sys/fs/cgroup$group/cpu.weight")" = 50 ] || failed "cpu.weight of $group is $(cat "/sys/fs/cgroup$group/cpu.weight")"
ok_confined=$(vmmctl vm show bounded | sed -n 's/^confined: *//p')
echo "ok: cpu.max and cpu.weight of $group; confined: $ok_confined"
one=$(spent free) two=$(spent bounded)
sleep 20
one=$(($(spent free) - one)) two=$(($(spent bounded) - two))
[ $((two * 2)) -lt $one ] || failed "with a quota of 25% it got $two ms, the other $one ms"
vmmctl vm stats bounded | grep 'quota used up in [1-9]' || failed "it was never throttled: $(vmmctl vm stats bounded)"
echo "ok: with a quota of 25% it got $two ms in 20 s, one without $one ms"
vmmctl vm limit bounded cpu --quota 40% || failed "the limit does not change"
kill -KILL $daemon
start
vmmctl vm show bounded | grep 'quota 40%' || failed "the next vmmd does not know the limit: $(vmmctl vm show bounded)"
vmmctl vm limit bounded cpu --none && [ "$(cut -d' ' -f1 "/sys/fs/cgroup$group/cpu.max")" = max ] || failed "the limit does not go away"
two=$(spent bounded)
sleep 10
[ $((($(spent bounded) - two))) -gt 4000 ] || echo "note: without its quota it got $(($(spent bounded) - two)) ms in 10 s"
for name in free bounded; do vmmctl vm stop $name || failed "$name does not stop"; done
[ ! -d "/sys/fs/cgroup$group" ] || failed "the group is left"
echo "ok: changed, kept across a kill of vmmd, taken away; nothing is left"
