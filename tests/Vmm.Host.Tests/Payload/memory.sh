#!/bin/bash
# Runs in the test host (two nodes): a vnode of a stock guest that walks its memory grows from 512 MiB to 1 GiB and back, on the right host node; a guest that holds
# its memory is told of truthfully.
set -u
here=/payload/memory
# shellcheck source=lib.sh disable=SC1091
. $here/lib.sh
start_vmmd
cat >/tmp/vms/m.yaml <<END
name: m
boot: {kernel: $here/kernel, initrd: $here/initrd, cmdline: "console=ttyS0 quiet panic=-1"}
balloon: true
numa:
  vnodes:
    - {cpus: 0, memory: 256MiB, hostNodes: 0}
    - {cpus: 1, memory: 512MiB, maxMemory: 1GiB, hostNodes: 1}
END
start_guest m
began=$(date +%s%N)
vmmctl vm memory m --vnode 1 --size 1GiB --timeout 300 || failed "it does not grow"
ok "512 MiB to 1 GiB in $(seconds_since "$began")"
tell memory memory 60
tell "hold 320" holds 120 # so that the new memory is touched
lies_on 0 0
lies_on 1 1
grep 'vmm:vnode1.hot' "/proc/$pid/numa_maps" | grep -q 'N1=' || failed "none of the grown part is touched: $(grep vmm:vnode "/proc/$pid/numa_maps")"
tell free freed 60
goes_on 1 120
began=$(date +%s%N)
vmmctl vm memory m --vnode 1 --size 512MiB --timeout 300 || failed "it does not shrink"
ok "back to 512 MiB in $(seconds_since "$began")"
grep 'vmm:vnode1.hot' "/proc/$pid/numa_maps" | grep -q 'N[0-9]*=' && failed "the host did not get the memory back: $(grep vmm:vnode "/proc/$pid/numa_maps")"
goes_on 1 120

# It holds all its memory but 256 MiB, half of what is asked back: not everything can be given back, and what would leave it too little is not even asked for.
vmmctl vm memory m --vnode 1 --size 1GiB --timeout 300 >/dev/null || failed "it does not grow again"
tell "hold 256" holds 180
began=$(date +%s%N)
vmmctl vm memory m --vnode 1 --size 512MiB --timeout 20 >/tmp/shrink 2>&1
status=$?
cat /tmp/shrink
[ $status = 1 ] && grep -q 'the guest did not get there in 20 s' /tmp/shrink || failed "a guest that holds its memory: exit code $status"
grep -q 'vnode 1: not yet asked for' /tmp/shrink || failed "it was asked for all of it"
stuck=$(vmmctl vm memory m -o json | tr -d ' \n' | sed 's/.*"vnode":1,//; s/.*"stuckBytes":\([0-9]*\).*/\1/')
[ "$stuck" -gt 0 ] && [ "$stuck" -le $((512 << 20)) ] || failed "stuck: $stuck"
ok "the guest holds its memory: $((stuck >> 20)) MiB of 512 were not given back, told after $(seconds_since "$began")"
goes_on 2 180
tell free freed 60
began=$(date +%s%N)
for _ in $(seq 300); do
    vmmctl vm memory m -o json | tr -d ' \n' | grep -q '"vnode":1,.*"stuckBytes":0' && break
    sleep 1
done
vmmctl vm memory m
vmmctl vm memory m -o json | tr -d ' \n' | grep -q '"vnode":1,.*"stuckBytes":0' || failed "it does not give back what it let go of"
ok "it gave back the rest when it let go of it, without being told again, in $(seconds_since "$began")"
vmmctl vm memory m --vnode 1 --size 256MiB 2>&1 | grep 'whichever vnode the guest likes' || failed "below the minimum with two vnodes"
keeps_its_memory
vmmctl vm stop m || failed "vm stop"
vmmctl vm delete m
stop_vmmd
ok "memory"
