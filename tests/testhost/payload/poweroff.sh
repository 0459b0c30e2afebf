#!/bin/bash
# Runs in the test host: a stock guest of 2 vCPUs comes up and is powered off by its button, ROUNDS times; in mode "shrink" its second vnode grows and shrinks in between.
# Prints how each round ended, the reports of crashes, and the counts.
set -u
here=/payload/poweroff
. $here/kvm-trace.sh
start_trace
rounds=$1 mode=$2
dpkg -i $here/vmm_*.deb >/tmp/dpkg.log 2>&1 || { tail -5 /tmp/dpkg.log; exit 1; }
mkdir -p /run/vmm /var/lib/vmm
/usr/sbin/vmmd --storage / >/tmp/vmmd.log 2>&1 &
daemon=$!
for _ in $(seq 300); do vmmctl vm list >/dev/null 2>&1 && break; sleep 0.2; done
cat >/tmp/g.yaml <<END
name: g
boot: {kernel: $here/kernel, initrd: $here/initrd, cmdline: "console=ttyS0 quiet panic=-1"}
numa:
  vnodes:
    - {cpus: 0, memory: 256MiB, hostNodes: 0}
    - {cpus: 1, memory: 256MiB, maxMemory: 768MiB, hostNodes: 1}
balloon: true
END
vmmctl vm create -f /tmp/g.yaml || exit 1
declare -A ends=()
mkfifo /tmp/nothing && exec 7<>/tmp/nothing # an input that stays open and says nothing
said() { for _ in $(seq $(($2 * 5))); do grep -q "$1" /tmp/console && return; sleep 0.2; done; return 1; }
for round in $(seq "$rounds"); do
    start=$SECONDS how=''
    vmmctl vm start g >/dev/null || exit 1
    vmmctl vm console g <&7 >/tmp/console 2>&1 &
    console=$!
    if ! said 'GUEST waits' 120; then how="never up"
    else
        if [ "$mode" = shrink ]; then
            for size in 512MiB 256MiB 768MiB 256MiB; do
                vmmctl vm memory g --vnode 1 --size $size --timeout 90 >/tmp/memory 2>&1 || how="$how $size not reached"
            done
        fi
        vmmctl vm power-button g --wait 90 >/dev/null 2>&1 || how="$how heeds no button"
    fi
    [ "$(vmmctl vm show g | awk '/^state:/ {print $2}')" != running ] || { sleep 1; vmmctl vm stop g >/dev/null; }
    kill $console 2>/dev/null
    exit=$(vmmctl vm show g | sed -n 's/^last exit: *\([A-Za-z]*\).*/\1/p')
    grep -q CORRUPT /tmp/console && how="$how memory corrupt"
    ends["$exit$how"]=$((${ends["$exit$how"]:-0} + 1))
    echo "round $round: $exit$how, $((SECONDS - start)) s, $(grep -c 'GUEST memory' /tmp/console) checks"
    if [ "$exit$how" != PowerOff ]; then
        vmmctl vm show g | grep 'last exit'
        tail -5 /tmp/console
        vmmctl vm logs g | tail -25
        show_trace 40
    fi
done
for end in "${!ends[@]}"; do echo "result $mode: $end ${ends[$end]} of $rounds"; done
kill -TERM $daemon
