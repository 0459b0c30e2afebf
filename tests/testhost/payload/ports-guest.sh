#!/bin/sh
# Main program of the guest of tests/testhost/ports: tells again and again which disks it has, by their serial numbers, and how many network devices; writes each
# new disk and reads it back; tells what its kernel says of ports, and what it complains of.
echo "GUEST up"
told=0
seen=' boot'
tell() { # Lines of the kernel's log that came since the last time.
    dmesg | tail -n +$((told + 1)) >/run.log
    told=$((told + $(wc -l </run.log)))
    grep -E 'pciehp|pcieport' /run.log | sed 's/^/GUEST kernel: /'
    grep -iE '(ACPI|PCI|virtio|pcieport).*(warn|error|bug|no space|fail|can.t assign|not respond|no link|cannot|timeout)|call trace' /run.log |
        grep -v 'if necessary, use .pci=nocrs. and report a bug' | sed 's/^/GUEST complains /'
}
prove() { # DEVICE SERIAL
    dd if=/dev/urandom of=/run.data bs=64k count=32 2>/dev/null
    dd if=/run.data of="/dev/$1" bs=64k oflag=direct 2>/dev/null
    dd if="/dev/$1" of=/run.back bs=64k count=32 iflag=direct 2>/dev/null
    cmp /run.data /run.back && echo "GUEST wrote $2" || echo "GUEST complains: $2 is not what was written"
}
while :; do
    serials=
    for disk in /sys/block/vd*; do
        [ -e "$disk" ] || continue
        serial=$(cat "$disk/serial")
        serials="$serials $serial"
        case "$seen" in *" $serial"*) ;; *) prove "${disk##*/}" "$serial"; seen="$seen $serial" ;; esac
    done
    tell
    for task in /proc/[0-9]*; do
        case "$(cat "$task/comm")" in irq/*) [ "$(cut -d' ' -f3 "$task/stat")" = D ] && sed "s|^|GUEST waits $(cat "$task/comm") |" "$task/stack" ;; esac
    done 2>/dev/null
    echo "GUEST has disks:$serials nets: $(ls /sys/class/net | grep -c '^e')"
    sleep 0.5
done
