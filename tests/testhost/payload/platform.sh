#!/bin/bash
# Runs in the test host: what stock guests and memtest86+ expect of a PC. Each step says "ok: STEP" or "failed: STEP" with the end of the console; ends with the count.
set -u
here=/payload/platform
failed=0
mkfifo /tmp/nothing && exec 7<>/tmp/nothing # an input that stays open and says nothing
step() { # NAME STATUS
    if [ "$2" = 0 ]; then echo "ok: $1 (${SECONDS} s)"; else
        failed=$((failed + 1)); echo "failed: $1 (${SECONDS} s)"; tail -15 /tmp/console; tail -5 /tmp/errors; fi
}
guest() { # KERNEL WORDS [OPTIONS...]
    kernel=$1 words=$2; shift 2
    timeout -k 5 150 /payload/vmmctl/vmmctl run --cpus "${cpus:-1}" --memory 256MiB --kernel "$here/$kernel" --initrd "$here/initrd-$kernel" --cmdline "console=ttyS0 panic=-1 $words" "$@" \
        </dev/null >/tmp/console 2>/tmp/errors
}
until_true() { # SECONDS COMMAND...: by the clock, for on an emulated machine a command takes long, too
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return
        sleep 0.2
    done
}
said() { until_true "$2" grep -q "$1" /tmp/console; }
clean() { ! grep 'GUEST complains' /tmp/console; }

# Without kvmclock. Linux calibrates the TSC by reading port 0x61 1000 times in 10 ms or the PM timer within 50,000 ticks of the TSC; an exit takes 88 µs in this host, far too long for
# either (under QEMU's machines it fails here, too), so the guest is told the rate.
model() {
    guest trixie "do=info no-kvmclock tsc_early_khz=$(sed -n 's/^cpu MHz.*: \([0-9]*\)\.\([0-9]*\)$/\1\2/p' /proc/cpuinfo | head -1)" && clean || return
    grep 'GUEST' /tmp/console
    grep -q "GUEST model: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" /tmp/console && grep -q 'GUEST clock .*acpi_pm' /tmp/console
}
# Disks and a network device over virtio-mmio: found by LNRO0005 devices in the DSDT, for the kernel reads none from its command line.
mmio() {
    ip tuntap add tapm mode tap vnet_hdr || return
    truncate -s 4M /tmp/m0.raw /tmp/m1.raw
    guest trixie do=disks --virtio-transport mmio --disk /tmp/m0.raw,serial=m0 --disk /tmp/m1.raw,serial=m1 --net tap=tapm,mac=52:54:00:12:34:56 && clean || return
    grep 'GUEST disk\|GUEST net' /tmp/console
    for serial in m0 m1; do
        grep -q "GUEST disk $serial at LNRO0005" /tmp/console && [ "$(head -n 1 /tmp/$serial.raw)" = "data of $serial" ] || return
    done
    grep -q 'GUEST net 52:54:00:12:34:56 at LNRO0005' /tmp/console
}
# Without messages: disks, a network device and a virtio console by the interrupt pins of PCI, two disks on one line.
intx() {
    ip tuntap add tapi mode tap vnet_hdr && ip addr add 192.0.2.1/24 dev tapi && ip link set tapi up || return
    local disks="disks:\n" serial
    for serial in i0 i1 i2 i3 i4 i5; do
        truncate -s 4M /tmp/$serial.raw
        disks+="  - {path: /tmp/$serial.raw, serial: $serial}\n"
    done
    managed "do=intx pci=nomsi console=hvc0" "cpus: 2\nconsole: virtio\n${disks}nets:\n  - {tap: tapi, mac: '52:54:00:12:34:57'}\n" && state stopped 150 && clean || return
    grep 'GUEST irq\|GUEST ping\|GUEST disk' /tmp/console
    for serial in i0 i1 i2 i3 i4 i5; do
        grep -q "GUEST disk $serial at" /tmp/console && [ "$(head -n 1 /tmp/$serial.raw)" = "data of $serial" ] || return
    done
    grep -q 'GUEST ping ok' /tmp/console && grep -q 'GUEST irq .*IO-APIC.*virtio' /tmp/console && ! grep 'GUEST irq .*MSI.*virtio' /tmp/console
}
# As many disks as a spec may have, under vmmd.
disks() {
    local spec="disks:\n" serial
    for serial in $(seq -w "$1"); do
        truncate -s 1M "/tmp/d$serial.raw"
        spec+="  - {path: /tmp/d$serial.raw, serial: d$serial}\n"
    done
    managed do=disks "$spec" && state stopped 150 && clean || return
    grep "GUEST disks: $1," /tmp/console || return
    for serial in $(seq -w "$1"); do
        grep -q "GUEST disk d$serial at" /tmp/console && [ "$(head -n 1 "/tmp/d$serial.raw")" = "data of d$serial" ] || return
    done
}
# Another kernel, 2 vCPUs and a disk.
kernel() {
    truncate -s 4M /tmp/k.raw
    cpus=2 guest "$1" "do=disks $2" --disk /tmp/k.raw,serial=k && clean || return
    grep 'GUEST disks: 1, cpus: 2' /tmp/console && grep -q 'GUEST disk k at' /tmp/console && [ "$(head -n 1 /tmp/k.raw)" = "data of k" ]
}
# A reboot ends the run with 0 and without a word of a crash.
reboot() {
    guest "$1" "do=reboot $2"
    status=$?
    cat /tmp/errors
    [ $status = 0 ] && grep -q 'GUEST reboots' /tmp/console && ! grep -q crashed /tmp/errors
}
panic() {
    guest trixie "do=panic" "$@"
    [ $? = 1 ] && grep -q "guest's kernel panicked" /tmp/errors && grep -q 'Kernel panic - not syncing' /tmp/console
}
# Memtest86+ says what it finds at once, and counts its tests; it has no end.
memtest() {
    timeout -k 5 240 /payload/vmmctl/vmmctl run --cpus "$1" --memory 64MiB --kernel $here/memtest --cmdline "console=ttyS0,115200" <&7 >/tmp/console 2>/tmp/errors &
    run=$!
    said 'Pass .*%' 200
    found=$?
    sleep 20
    kill $run; wait $run
    tr -d '\033' </tmp/console | tr -c '[:print:]\n' ' ' | grep -oE "Memtest86\+ v[0-9.]+|CLK/Temp:[^|]{0,20}|[0-9]+ Threads?[^|]{0,30}|CPU: [^|]{0,40}|Pass +[0-9]+%|Test +[0-9]+%|Errors: *[0-9]+" | sort | uniq -c | sort -rn | head -20
    [ $found = 0 ] && ! grep -q 'Unexpected' /tmp/console
}
# A VM of a vmmd, its console in /tmp/console.
managed() { # WORDS MORE-SPEC
    if [ ! -e /tmp/vmmd.log ]; then
        mkdir -p /run/vmm /var/lib/vmm
        /payload/vmmd/vmmd --storage / >/tmp/vmmd.log 2>&1 &
        until_true 60 $ctl vm list >/dev/null 2>&1
    fi
    $ctl vm delete --force g >/dev/null 2>&1
    printf 'name: g\nmemory: 256MiB\nboot: {kernel: %s, initrd: %s, cmdline: "console=ttyS0 panic=-1 %s"}\n%b' $here/trixie $here/initrd-trixie "$1" "$2" >/tmp/g.yaml
    : >/tmp/console
    $ctl vm create -f /tmp/g.yaml --start >/tmp/errors 2>&1 || return
    $ctl vm console g <&7 >/tmp/console 2>&1 &
}
is() { [ "$($ctl vm show g | awk '/^state:/ {print $2}')" = "$1" ]; }
state() { until_true "$2" is "$1" || { $ctl vm show g; return 1; }; }
suspend() {
    managed do=suspend "" && said 'GUEST sleeps 1' 150 && sleep 5 && ! grep -q 'GUEST woke 1' /tmp/console && $ctl vm wake g && said 'GUEST woke 1' 60 || return
    said 'GUEST sleeps 2' 20 && sleep 5 && ! grep -q 'GUEST woke 2' /tmp/console && $ctl vm power-button g && said 'GUEST woke 2' 60
}
pause() {
    managed do=pause "" && said 'GUEST waits' 150 && $ctl vm pause g && sleep 45 && $ctl vm resume g && state stopped 100 && clean
}
crash() {
    managed do=panic "onCrash: preserve\n" && state crashed 150 && $ctl vm logs g | grep guest-panicked && grep 'kernel of the guest of g panicked' /tmp/vmmd.log && $ctl vm stop g && state stopped 20 || return
    managed do=panic "restart: on-failure\n" && state crashed 150 && state running 60 && $ctl vm show g | grep -E 'restarts: *1'
}
ctl=/payload/vmmctl/vmmctl
for name in $1; do
    case $name in
        model) model ;;
        reboot-*) reboot trixie "${name#reboot-}" ;;
        reboot) reboot trixie "" ;;
        old-reboot) reboot bookworm-cloud "" ;;
        panic) panic ;;
        suspend) suspend ;;
        pause) pause ;;
        crash) crash ;;
        mmio) mmio ;;
        disks) disks 64 ;;
        intx) intx ;;
        kernel-*) kernel "${name#kernel-}" "" ;;
        memtest-*) memtest "${name#memtest-}" ;;
    esac
    step "$name" $?
done
echo "result: $failed failed"
exit $((failed > 0))
