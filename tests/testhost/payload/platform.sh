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
for name in $1; do
    case $name in
        model) model ;;
        reboot-*) reboot trixie "${name#reboot-}" ;;
        reboot) reboot trixie "" ;;
        old-reboot) reboot bookworm-cloud "" ;;
        panic) panic ;;
        memtest-*) memtest "${name#memtest-}" ;;
    esac
    step "$name" $?
done
echo "result: $failed failed"
exit $((failed > 0))
