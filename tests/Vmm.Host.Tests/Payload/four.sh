#!/bin/bash
# Runs in the test host with four nodes: a spec of another host is mapped onto this one, a vnode that no node can hold is split, and vnodes, one of huge pages,
# move to nodes that the VM was not on, under a stock guest that walks its memory.
set -u
here=/payload/four
# shellcheck source=lib.sh disable=SC1091
. $here/lib.sh
start_vmmd
vmmctl host numa
pages=/sys/devices/system/node/node%s/hugepages/hugepages-2048kB/nr_hugepages
for node in 1 3; do
    # shellcheck disable=SC2059
    echo 132 >"$(printf $pages $node)" && [ "$(cat "$(printf $pages $node)")" = 132 ] || failed "no huge pages on node $node"
done

# 1100 MiB are more than any node of 1 GiB has.
cat >/tmp/vms/big.yaml <<END
name: big
memory: 1100MiB
boot: {kernel: $here/dirty.elf, cmdline: "mib=560 base=524288000 seconds=8 tsc_khz=1000000"}
numa: {vnodes: [{cpus: 0, memory: 1100MiB, hostNodes: 0}]}
END
vmmctl run -f /tmp/vms/big.yaml 2>&1 | tee /tmp/exact | grep -q 'numa: {fit: best}' || failed "exact is not refused: $(cat /tmp/exact)"
ok "exact is refused: $(cut -c1-200 /tmp/exact)"
sed -i 's/numa: {/numa: {fit: best, /' /tmp/vms/big.yaml
vmmctl host fit /tmp/vms/big.yaml || failed "host fit"
vmmctl run -f /tmp/vms/big.yaml --no-serial-input >/tmp/big.log 2>&1 &
run=$!
for _ in $(seq 600); do grep -q READY /tmp/big.log && break; sleep 0.2; done
pid=$(pgrep -x vmm-run | head -1)
grep vmm:vnode "/proc/$pid/numa_maps" | sed 's/^[0-9a-f]* //' >/tmp/big.maps
wait $run || failed "the split guest ended with $?: $(tail -5 /tmp/big.log)"
grep 'vnode 0 split' /tmp/big.log || failed "no note of the split: $(cat /tmp/big.log)"
cat /tmp/big.maps
# Two mappings, each bound to one node, and pages of both.
awk '{ for (i = 2; i <= NF; i++) if (split($i, p, "=") == 2 && p[1] ~ /^N[0-9]+$/ && "bind:" substr(p[1], 2) == $1) bound++; else if (p[1] ~ /^N[0-9]+$/) stray++ } END { exit !(NR == 2 && bound == 2 && !stray) }' /tmp/big.maps || failed "the shares are not kept"
ok "a vnode of 1100 MiB is split over two nodes of 1 GiB, each share bound to its node"

truncate -s 16M /tmp/vms/data.raw
cat >/tmp/vms/f.yaml <<END
name: f
boot: {kernel: $here/kernel, initrd: $here/initrd, cmdline: "console=ttyS0 quiet panic=-1"}
numa:
  fit: best
  vnodes:
    - {cpus: 0, memory: 192MiB, hostNodes: 2}
    - {cpus: 1, memory: 256MiB, hostNodes: 9, pageSize: 2MiB}
disks: [{path: data.raw, vnode: 1}]
END
start_guest f
grep -q 'initiators 1 ' /tmp/f.log || failed "the guest's generic initiators: $(grep 'GUEST cpus' /tmp/f.log)"
ok "the guest knows that the disk is near its node 1"
vmmctl vm numa f || failed "vm numa"
vmmctl vm logs f | grep numa-fit | grep 'vnode 1 moved to host node 1: host node 9 does not exist here' || failed "no event: $(vmmctl vm logs f)"
lies_on 0 2
lies_on 1 1
io=$(vmmctl vm numa f -o json | tr -d ' \n' | sed 's/.*"name":"disk0-io0","id":\([0-9]*\).*/\1/')
grep -q "Cpus_allowed_list:.1$" "/proc/$pid/task/$io/status" || failed "disk0-io0 may run on $(grep Cpus_allowed_list "/proc/$pid/task/$io/status")"
ok "the I/O thread of the disk near vnode 1 runs on host node 1"

began=$(date +%s%N)
vmmctl vm rehome f --vnode 0 --host-nodes 0 --wait 300 || failed "vnode 0 does not move to host node 0"
ok "vnode 0 moved from 2 to 0 in $(seconds_since "$began")"
lies_on 0 0
goes_on 1 120
began=$(date +%s%N)
vmmctl vm rehome f --vnode 1 --host-nodes 3 --wait 300 || failed "vnode 1 of huge pages does not move to host node 3"
ok "vnode 1 of huge pages moved from 1 to 3 in $(seconds_since "$began")"
lies_on 1 3
lies_on 0 0
grep -q "Cpus_allowed_list:.3$" "/proc/$pid/task/$io/status" || failed "disk0-io0 did not follow"
vmmctl vm rehome f --vnode 1 --host-nodes 2 --wait 2>&1 | grep 'huge pages of 2 MiB would have to go to host node 2, which has 0 free' || failed "a node without huge pages"
vmmctl vm rehome f --vnode 0 --host-nodes 1-2 --wait 300 || failed "vnode 0 does not move to two nodes"
vmmctl vm numa f
goes_on 2 120
keeps_its_memory
vmmctl vm stop f || failed "vm stop"
stop_vmmd
ok "four nodes"
