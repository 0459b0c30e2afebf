#!/bin/bash
# Runs in the test host: Debian's installer on a serial console. Every check prints "ok: ..." or ends with "FAILED: ...".
set -u
here=/payload/installer
: >/tmp/console
failed() {
    echo "FAILED: $*"
    tail -c 3000 /tmp/console | cat -v
    tail -5 /tmp/errors
    exit 1
}
asks() { # TEXT SECONDS
    local end=$((SECONDS + $2))
    until grep -aq "$1" /tmp/console; do
        kill -0 $vm 2>/dev/null || { wait $vm; failed "vmmctl run ended with $? before '$1'"; }
        [ $SECONDS -lt $end ] || failed "it does not ask '$1' within $2 s"
        sleep 0.5
    done
    echo "ok: it asks '$1', $SECONDS s after its start"
}
truncate -s 4G /tmp/target
mkfifo /tmp/input && exec 7<>/tmp/input
SECONDS=0
/payload/vmmctl/vmmctl run --memory 1GiB --kernel $here/linux --initrd $here/initrd.gz --cmdline "console=ttyS0 panic=-1 quiet" --disk /tmp/target \
    <&7 >/tmp/console 2>/tmp/errors &
vm=$!
asks "Select a language" 900
sleep 2 # it drops what was typed ahead
printf '\r' >&7
asks "Select your location" 300
kill -TERM $vm
wait $vm
echo "ok: done in the test host"
