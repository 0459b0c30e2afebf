#!/bin/bash
# Runs in the test host: a stock guest with one vnode goes below its start by balloon, and comes back.
set -u
here=/payload/balloon
# shellcheck source=lib.sh disable=SC1091
. $here/lib.sh
start_vmmd
cat >/tmp/vms/s.yaml <<END
name: s
memory: 384MiB
boot: {kernel: $here/kernel, initrd: $here/initrd, cmdline: "console=ttyS0 quiet panic=-1"}
balloon: true
END
start_guest s
began=$(date +%s%N)
vmmctl vm memory s --size 256MiB --timeout 300 || failed "the balloon does not get there"
ok "one vnode, 384 to 256 MiB by balloon in $(seconds_since "$began")"
vmmctl vm memory s -o json | tr -d ' \n' | grep -q '"presentBytes":268435456' || failed "$(vmmctl vm memory s -o json)"
began=$(date +%s%N)
vmmctl vm memory s --size 384MiB --timeout 300 || failed "it does not come back"
ok "and back in $(seconds_since "$began")"
goes_on 1 120
keeps_its_memory
vmmctl vm stop s || failed "vm stop"
stop_vmmd
ok "balloon"
