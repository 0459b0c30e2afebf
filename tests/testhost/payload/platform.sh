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
    timeout -k 5 150 /payload/vmmctl/vmmctl run --cpus 1 --memory 256MiB --kernel "$here/$kernel" --initrd "$here/initrd-$kernel" --cmdline "console=ttyS0 panic=-1 $words" "$@" \
        </dev/null >/tmp/console 2>/tmp/errors
}
said() { for _ in $(seq $(($2 * 5))); do grep -q "$1" /tmp/console && return; sleep 0.2; done; return 1; }
clean() { ! grep 'GUEST complains' /tmp/console; }

model() {
    guest trixie "do=info no-kvmclock" && clean || return
    grep 'GUEST' /tmp/console
    grep -q "GUEST model: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" /tmp/console && grep -q 'GUEST clock .*acpi_pm' /tmp/console && grep -q 'GUEST clock tsc' /tmp/console
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
        for _ in $(seq 300); do $ctl vm list >/dev/null 2>&1 && break; sleep 0.2; done
    fi
    $ctl vm delete --force g >/dev/null 2>&1
    printf 'name: g\nmemory: 256MiB\nboot: {kernel: %s, initrd: %s, cmdline: "console=ttyS0 panic=-1 %s"}\n%b' $here/trixie $here/initrd-trixie "$1" "$2" >/tmp/g.yaml
    : >/tmp/console
    $ctl vm create -f /tmp/g.yaml --start >/tmp/errors 2>&1 || return
    $ctl vm console g <&7 >/tmp/console 2>&1 &
}
state() { for _ in $(seq $(($2 * 5))); do [ "$($ctl vm show g | awk '/^state:/ {print $2}')" = "$1" ] && return; sleep 0.2; done; $ctl vm show g; return 1; }
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
        memtest-*) memtest "${name#memtest-}" ;;
    esac
    step "$name" $?
done
echo "result: $failed failed"
exit $((failed > 0))
