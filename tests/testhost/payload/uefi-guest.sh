#!/bin/sh
# Main program of the guests of tests/testhost/uefi: keeps a UEFI variable and reboots, or finds it and powers off.
vars=/sys/firmware/efi/efivars
[ -d /sys/firmware/efi ] || { echo "GUEST not by UEFI"; exit; }
mount -t efivarfs none $vars || { echo "GUEST no variables"; exit; }
loader=4a67b082-0a4c-41cf-b6c7-440b29bb8c4f # systemd's variables
info() { [ ! -f "$vars/$1-$loader" ] || tail -c +5 "$vars/$1-$loader" | tr -d '\000'; }
case " $(cat /proc/cmdline) " in
    *" vmm.do=kexec "*)
        echo "GUEST by $(info LoaderInfo)"
        mount -t vfat -o ro /dev/vda1 /mnt && echo "GUEST kexec" && kexec-into /mnt/vmlinuz /mnt/initrd.img "console=ttyS0 panic=-1 quiet vmm.do=end"
        echo "GUEST no kexec"
        exit
        ;;
    *" vmm.do=end "*)
        echo "GUEST end by $(info StubInfo) efi $(cat /sys/firmware/efi/fw_platform_size) cpus $(grep -c ^processor /proc/cpuinfo) dmi $(cat /sys/class/dmi/id/product_name)"
        exit
        ;;
esac
mine=$vars/VmmTest-4f8b1a52-0f2a-4d2c-9a57-2f6f1c8f7d11
echo "GUEST efi $(cat /sys/firmware/efi/fw_platform_size) cpus $(grep -c ^processor /proc/cpuinfo) memory $(awk '/MemTotal/ {print $2}' /proc/meminfo) acpi $(ls /sys/firmware/acpi/tables | tr '\n' ' ')"
dmesg | grep -iE 'acpi.*(error|warning)|firmware bug' | head -20 | sed 's/^/GUEST says: /'
dmi=/sys/class/dmi/id
oem=$(ls -d /sys/firmware/dmi/entries/11-* 2>/dev/null) && oem=$(tail -c +6 "$oem/raw" | tr '\000' '\n' | head -1)
echo "GUEST dmi $(cat $dmi/sys_vendor) $(cat $dmi/product_name) serial $(cat $dmi/product_serial) uuid $(cat $dmi/product_uuid) oem $oem"
echo "GUEST debug port $(say-port 0x402 "guest speaks")"
if [ -f "$mine" ]; then
    echo "GUEST found $(tail -c +5 "$mine" | head -c 20)"
    ls -l /sys/bus/pci/devices | awk '{print "GUEST pci", $9, $10, $11}' | head -20
    exit
fi
printf '\007\000\000\000persistent' >"$mine" && echo "GUEST kept"
echo "GUEST reboots"
reboot -f
sleep 60
