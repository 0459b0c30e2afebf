# shellcheck shell=bash
# What the scripts of the test host share: checks, vmmd, a guest that is talked to over its console. Every check prints "ok: ..." or ends with "FAILED: ...".
PATH=/payload/vmmctl:/payload/vmmd:$PATH
guest=''
daemon=''
ok() { echo "ok: $*"; }
failed() {
    echo "FAILED: $*"
    tail -25 "/tmp/$guest.log" 2>/dev/null
    echo "--- vmmd"
    tail -25 /tmp/vmmd.log 2>/dev/null
    exit 1
}

start_vmmd() {
    mkdir -p /run/vmm /var/lib/vmm /tmp/vms
    vmmd --storage / >/tmp/vmmd.log 2>&1 &
    daemon=$!
    for _ in $(seq 600); do [ -S /run/vmm/vmmd.sock ] && break; sleep 0.2; done
    [ -S /run/vmm/vmmd.sock ] || failed "vmmd does not listen"
    echo "vmmd runs"
}
stop_vmmd() {
    kill -TERM "$daemon"
    wait "$daemon" || failed "vmmd ended with $?"
}

walks() { grep -c 'GUEST walk [0-9]* ok' "/tmp/$guest.log"; }
# start_guest NAME: of /tmp/vms/NAME.yaml, until it walks its memory. QEMU's emulation crashes nested guests now and then, mostly while they boot. Nothing is
# asked meanwhile: the host has slow CPUs for everything.
start_guest() {
    guest=$1
    [ -p "/tmp/$guest.in" ] || mkfifo "/tmp/$guest.in"
    exec 3<>"/tmp/$guest.in"
    for attempt in 1 2 3; do
        : >"/tmp/$guest.log"
        vmmctl vm create -f "/tmp/vms/$guest.yaml" --start || failed "$guest does not start"
        vmmctl vm console "$guest" <"/tmp/$guest.in" >"/tmp/$guest.log" 2>&1 &
        for _ in $(seq 250); do
            [ "$(walks)" -lt 1 ] && pgrep vmm-worker >/dev/null && sleep 1
        done
        [ "$(walks)" -ge 1 ] && break
        echo "attempt $attempt: the guest did not come up: $(tail -3 "/tmp/$guest.log")"
        vmmctl vm delete "$guest" --force
    done
    [ "$(walks)" -ge 1 ] || failed "$guest does not walk"
    pid=$(vmmctl vm show "$guest" -o json | sed -n 's/.*"workerProcessId": *\([0-9]*\).*/\1/p')
    grep -o 'GUEST cpus.*' "/tmp/$guest.log"
}
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
# tell COMMAND ANSWER SECONDS: a line for the guest, and what it says when it is done.
tell() {
    local before
    before=$(grep -c "GUEST $2" "/tmp/$guest.log")
    echo "$1" >&3
    for _ in $(seq $(($3 * 15))); do # an emulator on a slow machine takes three times as long
        [ "$(grep -c "GUEST $2" "/tmp/$guest.log")" -gt "$before" ] && { grep -o "GUEST $2.*" "/tmp/$guest.log" | tail -1; return; }
        sleep 0.2
    done
    failed "the guest does not answer '$1'"
}
keeps_its_memory() {
    grep -q CORRUPT "/tmp/$guest.log" && failed "the guest's memory changed: $(grep CORRUPT "/tmp/$guest.log")"
    ok "the guest kept its checksum in $(walks) rounds"
}

# Share of vnode $1 on host node $2 as the kernel counts it, in tenths of a per cent.
share() {
    grep "memfd:vmm:vnode$1" "/proc/$pid/numa_maps" | awk -v node="$2" '{ size = 4; for (i = 1; i <= NF; i++) if ($i ~ /^kernelpagesize_kB=/) { split($i, k, "="); size = k[2] }
        for (i = 1; i <= NF; i++) if (split($i, p, "=") == 2 && p[1] ~ /^N[0-9]+$/) { all += p[2] * size; if (p[1] == "N" node) there += p[2] * size } } END { print all ? int(there * 1000 / all) : 0 }'
}
lies_on() {
    local part
    part=$(share "$1" "$2")
    [ "$part" -gt 990 ] || failed "only $part of 1000 pages of vnode $1 lie on host node $2: $(grep vmm:vnode "/proc/$pid/numa_maps")"
    ok "vnode $1: $part of 1000 pages lie on host node $2"
}
seconds_since() { awk -v from="$1" -v to="$(date +%s%N)" 'BEGIN { printf "%.1f s", (to - from) / 1e9 }'; }
