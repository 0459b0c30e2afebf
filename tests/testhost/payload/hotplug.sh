#!/bin/bash
# Runs in the test host: boots a stock guest under vmmd and plugs a disk in at one of ten moments after its kernel found the PCI bus, ten boots; then ten disks in one boot.
# The guest that is up must have exactly the disks that `vm devices` names. Prints a line for each boot and the count of failures.
set -u
here=/payload/hotplug
ctl=/payload/vmmctl/vmmctl
. $here/kvm-trace.sh
start_trace
moments=(0 0.1 0.2 0.3 0.4 0.6 0.8 1.2 2 4)
failed=0
mkfifo /tmp/nothing && exec 7<>/tmp/nothing # an input that stays open and says nothing
mkdir -p /run/vmm /var/lib/vmm /tmp/disks
/payload/vmmd/vmmd --storage / >/tmp/vmmd.log 2>&1 &
daemon=$!
for _ in $(seq 300); do $ctl vm list >/dev/null 2>&1 && break; sleep 0.2; done
for serial in boot hot0 hot1 hot2 hot3 hot4 hot5 hot6 hot7 hot8 hot9; do truncate -s 4M /tmp/disks/$serial.raw; done
cat >/tmp/g.yaml <<END
name: g
memory: 256MiB
cpus: 2
boot: {kernel: $here/kernel, initrd: $here/initrd, cmdline: "console=ttyS0 panic=-1"}
disks: [{path: /tmp/disks/boot.raw, serial: boot}]
END
$ctl vm create -f /tmp/g.yaml >/dev/null || exit 1

runs() { $ctl vm show g | grep -q '^state: *running'; }
said() { # TEXT SECONDS, or until the guest is gone
    local end=$((SECONDS + $2))
    until grep -q "$1" /tmp/console; do
        [ $SECONDS -lt $end ] && runs || return
        sleep 0.2
    done
}
# What vmmd says is plugged in, as serial numbers; what the guest says.
named() { $ctl vm devices g -o json | python3 -c 'import json, sys; print(*sorted(d["source"].split("/")[-1][:-4] for d in json.load(sys.stdin)["devices"]))'; }
seen() { tr -d '\r' </tmp/console | sed -n 's/^GUEST disks //p' | tail -1 | tr ' ' '\n' | sort | tr '\n' ' ' | sed 's/ $//'; }
boot() { # SERIAL:SECONDS...
    local waiting=() status=0 pair devices console
    : >/tmp/console
    for pair; do
        python3 $here/attach-at.py /tmp/console 'PCI host bridge to bus' "${pair#*:}" g "/tmp/disks/${pair%:*}.raw" "${pair%:*}" &
        waiting+=($!)
    done
    sleep 1 # until they have their connections
    $ctl vm start g >/dev/null || return
    $ctl vm console g <&7 >/tmp/console 2>&1 &
    console=$!
    if ! said 'GUEST disks' 120 && ! runs; then
        kill "${waiting[@]}" $console 2>/dev/null
        return 2
    fi
    for pair in "${waiting[@]}"; do wait "$pair" || status=1; done
    devices=$(named)
    for _ in $(seq 40); do [ "$(seen)" = "$devices" ] && break; sleep 0.25; done
    [ "$(seen)" = "$devices" ] || { echo "  vm devices: $devices; the guest: $(seen)"; status=1; }
    [ "$(wc -w <<<"$devices")" = $(($# + 1)) ] || { echo "  vm devices names $devices"; status=1; }
    ! grep 'GUEST complains' /tmp/console || status=1
    $ctl vm stop g >/dev/null || status=1
    kill $console 2>/dev/null
    return $status
}
for round in $(seq "$1"); do
    for moment in "${moments[@]}" all; do
        pairs=()
        if [ "$moment" = all ]; then for i in "${!moments[@]}"; do pairs+=("hot$i:${moments[i]}"); done; else pairs=("hot0:$moment"); fi
        start=$SECONDS
        boot "${pairs[@]}"
        how=$?
        # Guests crash now and then under nested SVM that is emulated, at a boot of QEMU's, too: such a boot says nothing of disks, and is done again once.
        if [ $how = 2 ]; then
            echo "note: round $round, $moment s: the guest crashed: $($ctl vm show g | grep 'last exit')"
            show_trace 40
            boot "${pairs[@]}"
            how=$?
        fi
        if [ $how = 0 ]; then echo "ok: round $round, $moment s behind the PCI scan, $((SECONDS - start)) s"; else
            failed=$((failed + 1)); echo "failed: round $round, $moment s behind the PCI scan, $((SECONDS - start)) s"; tail -15 /tmp/console; tail -5 /tmp/vmmd.log
        fi
    done
done
echo "result: $failed of $(($1 * 11)) boots failed"
kill -TERM $daemon
exit $((failed > 0))
