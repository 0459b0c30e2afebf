#!/bin/bash
# Runs in the test host: boots the same stock kernel with 2 vCPUs under Vmm and under QEMU (both on this host's KVM) in turn, ROUNDS times each; the guest powers off as soon as
# it is up. Prints how each round ended, Vmm's reports of crashes, and the counts.
set -u
here=/payload/compare
. $here/kvm-trace.sh
start_trace
rounds=$1
declare -A ends=()
cmdline="console=ttyS0 ${2/verbose/loglevel=7} panic=-1"

vmm() {
    timeout -k 5 120 /payload/vmmctl/vmmctl run --quiet --cpus 2 --memory 256MiB --kernel $here/kernel --initrd $here/initrd --cmdline "$cmdline" </dev/null >/tmp/console 2>/tmp/errors
    case $? in
        0) end=off ;;
        124 | 137) end=hangs ;;
        *) end=crash; cat /tmp/errors ;;
    esac
}

# The reason of the SHUTDOWN event tells a power-off from the reset that a triple fault is.
qemu() {
    rm -f /tmp/qmp
    timeout -k 5 120 /payload/emulator-*/qemu-system-x86_64 -accel kvm -cpu host -M q35 -smp 2 -m 256M -display none -vga none -nodefaults -net none -no-reboot \
        -kernel $here/kernel -initrd $here/initrd -append "$cmdline" -serial file:/tmp/console -qmp unix:/tmp/qmp,server=on,wait=on 2>/tmp/errors &
    local pid=$!
    end=$(timeout 125 python3 - <<'END' 2>/dev/null
import json, socket, time
for _ in range(600):
    try:
        s = socket.socket(socket.AF_UNIX); s.connect("/tmp/qmp"); break
    except OSError:
        time.sleep(0.1)
f = s.makefile("rw")
f.readline(); f.write('{"execute": "qmp_capabilities"}\n'); f.flush()
for line in f:
    event = json.loads(line)
    if event.get("event") == "SHUTDOWN":
        print({"guest-shutdown": "off", "guest-reset": "crash"}.get(event["data"]["reason"], event["data"]["reason"]))
        break
END
)
    wait $pid
    end=${end:-hangs}
}

for round in $(seq "$rounds"); do
    for program in vmm qemu; do
        start=$SECONDS
        : >/tmp/console
        $program
        grep -q 'script ended with 0' /tmp/console && where=up || where="before user space"
        [ "$end" = off ] && [ "$where" = up ] || end="$end ($where)"
        ends["$program: $end"]=$((${ends["$program: $end"]:-0} + 1))
        echo "round $round $program: $end, $((SECONDS - start)) s"
        [ "$end" = off ] || { tail -5 /tmp/console; show_trace 40; }
    done
done
for end in "${!ends[@]}"; do echo "result $end: ${ends[$end]} of $rounds"; done
