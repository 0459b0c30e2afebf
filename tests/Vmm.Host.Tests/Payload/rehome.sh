#!/bin/bash
# Runs in the test host (two nodes): a stock guest walks its memory while vnode 1 moves from host node 1 to 0 and back. Every check prints "ok: ..." or ends
# with "FAILED: ...".
set -u
here=/payload/rehome
PATH=/payload/vmmctl:/payload/vmmd:$PATH
ok() { echo "ok: $*"; }
failed() {
    echo "FAILED: $*"
    tail -25 /tmp/w.log 2>/dev/null
    echo "--- vmmd"
    tail -25 /tmp/vmmd.log 2>/dev/null
    exit 1
}
walks() { grep -c 'GUEST walk [0-9]* ok' /tmp/w.log; }
# The guest goes on: so many rounds more within so many seconds.
goes_on() {
    local begin
    begin=$(walks)
    for _ in $(seq $(($2 * 5))); do
        [ "$(walks)" -ge $((begin + $1)) ] && return
        sleep 0.2
    done
    failed "the guest stands still after $begin rounds"
}
# Share of vnode $1 on host node $2 as the kernel counts it, in tenths of a per cent.
share() {
    grep "memfd:vmm:vnode$1" "/proc/$pid/numa_maps" | awk -v node="$2" '{ for (i = 1; i <= NF; i++) if (split($i, p, "=") == 2 && p[1] ~ /^N[0-9]+$/) { all += p[2]; if (p[1] == "N" node) there += p[2] } } END { print all ? int(there * 1000 / all) : 0 }'
}
lies_on() {
    local part
    part=$(share "$1" "$2")
    [ "$part" -gt 990 ] || failed "only $part of 1000 pages of vnode $1 lie on host node $2: $(grep vmm:vnode "/proc/$pid/numa_maps")"
    ok "vnode $1: $part of 1000 pages lie on host node $2"
}

mkdir -p /run/vmm /var/lib/vmm /tmp/work
vmmd >/tmp/vmmd.log 2>&1 &
daemon=$!
for _ in $(seq 300); do [ -S /run/vmm/vmmd.sock ] && break; sleep 0.2; done
[ -S /run/vmm/vmmd.sock ] || failed "vmmd does not listen"
echo "vmmd runs"
cat >/tmp/work/w.yaml <<END
name: w
boot: {kernel: $here/kernel, initrd: $here/initrd, cmdline: "console=ttyS0 quiet panic=-1"}
numa:
  vnodes:
    - {cpus: 0, memory: 256MiB, hostNodes: 0}
    - {cpus: 1, memory: 256MiB, hostNodes: 1}
END
# QEMU's emulation crashes nested guests now and then, mostly while they boot. Nothing is asked meanwhile: the host has two slow CPUs for everything.
for attempt in 1 2 3; do
    : >/tmp/w.log
    vmmctl vm create -f /tmp/work/w.yaml --start || failed "the VM does not start"
    tail -f /dev/null | vmmctl vm console w >/tmp/w.log 2>&1 &
    for _ in $(seq 200); do
        [ "$(walks)" -lt 1 ] && pgrep vmm-worker >/dev/null && sleep 1
    done
    [ "$(walks)" -ge 1 ] && break
    echo "attempt $attempt: the guest did not come up: $(tail -3 /tmp/w.log)"
    vmmctl vm delete w --force
done
[ "$(walks)" -ge 1 ] || failed "the guest does not walk"
pid=$(vmmctl vm show w -o json | sed -n 's/.*"workerProcessId": *\([0-9]*\).*/\1/p')
vmmctl host numa || failed "host numa"
vmmctl vm numa w || failed "vm numa"
lies_on 0 0
lies_on 1 1

vmmctl vm rehome w --vnode 1 --host-nodes 0 --wait 300 || failed "vnode 1 does not move to host node 0"
lies_on 0 0
lies_on 1 0
vmmctl vm numa w | grep -q '^1  *1  *0  *strict .* 100.0 %$' || failed "vm numa: $(vmmctl vm numa w)"
vcpu=$(vmmctl vm numa w -o json | tr -d ' \n' | sed 's/.*"name":"vcpu1","id":\([0-9]*\).*/\1/')
grep -q "Cpus_allowed_list:.0$" "/proc/$pid/task/$vcpu/status" || failed "vcpu1 may run on $(grep Cpus_allowed_list "/proc/$pid/task/$vcpu/status")"
ok "the thread of vCPU 1 runs on host node 0"
goes_on 1 120

vmmctl vm rehome w --vnode 1 --host-nodes 1 --rate 64MiB --wait 300 || failed "vnode 1 does not move back"
lies_on 1 1
grep -q "Cpus_allowed_list:.1$" "/proc/$pid/task/$vcpu/status" || failed "vcpu1 may run on $(grep Cpus_allowed_list "/proc/$pid/task/$vcpu/status")"
goes_on 1 120

job=$(vmmctl vm rehome w --vnode 1 --host-nodes 0 --rate 1MiB -o json | tr -d ' \n' | sed 's/.*"id":"\([0-9a-f]*\)".*/\1/')

vmmctl job cancel "$job"
vmmctl job wait "$job" 2>&1 | grep -q cancelled || failed "the job was not cancelled: $(vmmctl job show "$job")"
vmmctl vm numa w
vmmctl vm numa w | grep -q '^1  *1  *1  *strict ' || failed "after the cancel: $(vmmctl vm numa w)"
part=$(share 1 0)
[ "$part" -lt 1000 ] || failed "after the cancel $part of 1000 pages are on host node 0"
ok "a cancelled move: $part of 1000 pages had gone, the home is as before"
vmmctl vm rehome w --vnode 1 --host-nodes 1 --wait 300 || failed "what had gone does not come back"
lies_on 1 1
vmmctl vm rehome w --vnode 1 --host-nodes 7 --wait 2>&1 | grep 'not all there' || failed "a node that does not exist"
goes_on 1 120
grep -q CORRUPT /tmp/w.log && failed "the guest's memory changed: $(grep CORRUPT /tmp/w.log)"
vmmctl vm stop w || failed "vm stop"
vmmctl vm logs w | grep rehome
kill -TERM $daemon
wait $daemon || failed "vmmd ended with $?"
ok "the guest kept its checksum in $(walks) rounds"
