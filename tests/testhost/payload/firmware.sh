#!/bin/bash
# Runs in the test host: how long the same firmware needs to GRUB under Vmm and under QEMU, in turn. Prints each round, the medians and their ratio.
set -u
here=/payload/firmware
mkdir -p /usr/share/OVMF
cp $here/OVMF_*.fd /usr/share/OVMF/
cp $here/disk /tmp/disk
cat >/tmp/vm.yaml <<END
memory: 512MiB
cpus: 2
boot: {firmware: uefi, variables: /tmp/vmm.fd}
disks: [{path: /tmp/disk}]
END
now() { echo $(($(date +%s%N) / 1000000)); }
until_grub() { # NAME PROGRAM...: milliseconds
    local name=$1 begin pid
    shift
    : >/tmp/console
    begin=$(now)
    "$@" </dev/null >/tmp/console 2>/tmp/errors &
    pid=$!
    until grep -aq "GRUB is here" /tmp/console; do
        kill -0 $pid 2>/dev/null || { echo "FAILED: $name ended: $(tail -3 /tmp/errors)"; exit 1; }
        [ $(($(now) - begin)) -lt 300000 ] || { echo "FAILED: $name does not come to GRUB"; tail -5 /tmp/console; exit 1; }
        sleep 0.05
    done
    took=$(($(now) - begin))
    kill -KILL $pid
    wait $pid 2>/dev/null
    echo "$took" >>"/tmp/$name"
    echo "$name: $took ms"
}
median() { sort -n "$1" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
for round in $(seq "$1"); do
    cp /usr/share/OVMF/OVMF_VARS_4M.fd /tmp/vmm.fd
    cp /usr/share/OVMF/OVMF_VARS_4M.fd /tmp/qemu.fd
    vmm=(until_grub vmm /payload/vmmctl/vmmctl run --quiet -f /tmp/vm.yaml)
    qemu=(until_grub qemu /payload/emulator-*/qemu-system-x86_64 -accel kvm -cpu host -M q35 -smp 2 -m 512M -display none -vga none -nodefaults -net none
        -drive if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd -drive if=pflash,unit=1,format=raw,file=/tmp/qemu.fd
        -drive file=/tmp/disk,if=virtio,format=raw,cache=none -device virtio-rng-pci -serial stdio)
    if ((round % 2)); then "${vmm[@]}" && "${qemu[@]}"; else "${qemu[@]}" && "${vmm[@]}"; fi
done
echo "firmware to GRUB: vmm $(median /tmp/vmm) ms, qemu $(median /tmp/qemu) ms, ratio $(awk -v a="$(median /tmp/vmm)" -v b="$(median /tmp/qemu)" 'BEGIN {printf "%.2f", a / b}') (goal: at most 1.00)"
