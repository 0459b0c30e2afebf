#!/bin/sh
# Runs in a stock guest: what do= of the command line says. Lines begin with GUEST.
for word in $(cat /proc/cmdline); do
    case $word in do=*) what=${word#do=} ;; esac
done
echo "GUEST model$(sed -n 's/^model name[^:]*:/:/p' /proc/cpuinfo | head -1)"
echo "GUEST clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource) of $(cat /sys/devices/system/clocksource/clocksource0/available_clocksource)"
dmesg | grep -iE 'tsc: |pm-timer|calibrat|clocksource: .*(skew|wd_|cs_|unstable)' | sed 's/^/GUEST log /'
dmesg | grep -E '(ACPI|PCI|pci|virtio).*(\[Firmware|[Ww]arn|WARN|[Ee]rror|BUG|invalid|conflict|bogus)|\[Firmware (Bug|Warn)|Call Trace' | sed 's/^/GUEST complains /'
case $what in
    info) ;;
    disks | intx)
        # Each disk: on which device of the bus it is, and its serial number, which is also written to it and read back.
        for disk in /sys/block/vd*; do
            name=${disk##*/} serial=$(cat "$disk/serial")
            echo "data of $serial" >/pattern
            dd if=/pattern of="/dev/$name" conv=fsync 2>/dev/null
            echo 1 >/proc/sys/vm/drop_caches
            [ "$(head -n 1 "/dev/$name")" = "data of $serial" ] && echo "GUEST disk $serial at $(basename "$(dirname "$(readlink -f "$disk/device")")")"
        done
        for net in /sys/class/net/e*; do
            [ ! -e "$net" ] || echo "GUEST net $(cat "$net/address") at $(basename "$(dirname "$(readlink -f "$net/device")")")"
        done
        if [ "$what" = intx ]; then
            ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up
            for second in $(seq 20); do ping -c 1 -W 1 192.0.2.1 >/dev/null && break; sleep 0.2; done
            ping -c 5 -i 0.2 -s 1400 192.0.2.1 | grep -q ' 0% packet loss' && echo "GUEST ping ok"
            grep virtio /proc/interrupts | sed 's/^/GUEST irq /'
            dmesg | grep -iE 'nobody cared|spurious|disabling IRQ' | sed 's/^/GUEST complains /'
        fi
        echo "GUEST disks: $(ls -d /sys/block/vd* | wc -l), cpus: $(nproc), kernel: $(uname -r)"
        ;;
    reboot) echo "GUEST reboots"; reboot -f ;;
    panic) echo "GUEST panics"; echo c >/proc/sysrq-trigger ;;
    pause)
        echo "GUEST waits"
        for second in $(seq 40); do sleep 1; done
        dmesg | grep -iE 'lockup|stall|hung' | sed 's/^/GUEST complains /'
        ;;
    suspend)
        grep -q PNP0C0C /sys/bus/acpi/devices/*/hid && echo "GUEST button $(cat /sys/bus/acpi/devices/PNP0C0C:00/power/wakeup 2>/dev/null)"
        for round in 1 2; do
            echo "GUEST sleeps $round"
            echo freeze >/sys/power/state && echo "GUEST woke $round"
        done
        dmesg | grep -E 'PM: |virtio|Call Trace' | tail -20 | sed 's/^/GUEST log /'
        ;;
esac
