#!/bin/sh
# Main program of the guest of tests/testhost/hotplug: tells again and again which disks it has, by their serial numbers, until its plug is pulled.
echo "GUEST up"
dmesg | grep -iE '(ACPI|PCI|pci|virtio).*(warn|error|bug|no space|fail|can.t assign)|call trace' | grep -v 'if necessary, use .pci=nocrs. and report a bug' | sed 's/^/GUEST complains /'
while :; do
    serials=
    for disk in /sys/block/vd*; do serials="$serials $(cat "$disk/serial")"; done
    echo "GUEST disks$serials"
    sleep 1
done
