#!/bin/bash
# Runs in the test host (two nodes): a stock guest walks its memory while vnode 1 moves from host node 1 to 0 and back. Every check prints "ok: ..." or ends
# with "FAILED: ...".
set -u
here=/payload/rehome
# shellcheck source=lib.sh disable=SC1091
. $here/lib.sh
start_vmmd
cat >/tmp/vms/w.yaml <<END
name: w
boot: {kernel: $here/kernel, initrd: $here/initrd, cmdline: "console=ttyS0 quiet panic=-1"}
numa:
  vnodes:
    - {cpus: 0, memory: 256MiB, hostNodes: 0}
    - {cpus: 1, memory: 256MiB, hostNodes: 1}
END
start_guest w
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
vmmctl vm stop w || failed "vm stop"
vmmctl vm logs w | grep rehome
stop_vmmd
keeps_its_memory
