#!/bin/bash
# Runs in the test host: a Debian guest is saved amid its work and restored, several times. Every check prints "ok: ..." or ends with "FAILED: ...".
set -u
here=/payload/save
vmmctl=/payload/vmmctl/vmmctl
failed() { echo "FAILED: $*"; tail -40 /tmp/console 2>/dev/null; cat /tmp/errors 2>/dev/null; exit 1; }
said() { # text, seconds: the guest says it in the present run
    for _ in $(seq $(($2 * 2))); do
        grep -q "$1" /tmp/console && return
        kill -0 "$vm" 2>/dev/null || return 1
        sleep 0.5
    done
    return 1
}
start() { # what to run
    cat /tmp/console >>/tmp/all 2>/dev/null
    : >/tmp/console
    "$vmmctl" run "$@" <&7 >/tmp/console 2>/tmp/errors &
    vm=$!
}
before=$(dmesg | wc -l)
rounds=$(cat $here/rounds)
cp --sparse=always $here/disk /tmp/disk
ip tuntap add dev tap0 mode tap && ip addr add 192.0.2.1/24 dev tap0 && ip link set tap0 up || failed "no tap"
mkfifo /tmp/input && exec 7<>/tmp/input
cat >/tmp/vm.yaml <<END
name: saved
cpus: 2
memory: 384MiB
minMemory: 256MiB
maxMemory: 512MiB
boot: {kernel: $here/kernel, initrd: $here/initrd, cmdline: "console=ttyS0 panic=-1"}
disks: [{path: /tmp/disk, serial: work, queues: 2}]
nets: [{tap: tap0}]
rng: true
balloon: {target: 16MiB, freePageReporting: true, statsInterval: 1}
vsock: {cid: 5, path: /tmp/vsock}
END
start -f /tmp/vm.yaml --save-to /tmp/saved1
said "GUEST works" 150 || failed "the guest did not come up"
said "GUEST tick 5 " 120 || failed "the guest does not tick"
ok() { echo "ok: $*"; }
memory=$(sed -n 's/.*GUEST works.* \([0-9]*\) KiB.*/\1/p' /tmp/console)
[ "${memory:-0}" -gt 230000 ] || failed "the guest has $memory KiB: nothing was plugged"
ok "$(grep -o 'GUEST works.*' /tmp/console | tr -d '\r')"
for round in $(seq "$rounds"); do
    sleep $((round % 3 + 1)).$((round * 37 % 100))
    begin=$(date +%s%N)
    kill -TERM $vm
    wait $vm || failed "round $round: vmmctl ended with $? instead of saving"
    [ -f /tmp/saved$round/vm.json ] || failed "round $round: nothing was saved"
    middle=$(date +%s%N)
    size=$(du -sm /tmp/saved$round | cut -f1)
    start --restore /tmp/saved$round --save-to /tmp/saved$((round + 1))
    said "GUEST tick" 120 || failed "round $round: the guest does not go on"
    ok "round $round: saved $size MiB in $(((middle - begin) / 1000000)) ms, the guest ticks $((($(date +%s%N) - middle) / 1000000)) ms after the restore began"
    rm -rf /tmp/saved$round
    # What is typed reaches it; it looks at all that its disk and its memory hold, and pings this host.
    echo "check $round" >&7
    said "GUEST checked $round " 120 || failed "round $round: the guest does not check its disk"
    grep -q "GUEST checked $round ok" /tmp/console || failed "round $round: $(grep 'GUEST checked' /tmp/console)"
done
echo end >&7
said "GUEST end" 120 || failed "the guest does not end"
wait $vm || failed "vmmctl ended with $?"
cat /tmp/console >>/tmp/all
tr -d '\r' </tmp/all | grep GUEST >/tmp/guest
# Ticks are all there and in order, and its clocks went on as if nothing had been.
ticks=$(sed -n 's/^GUEST tick \([0-9]*\) .*/\1/p' /tmp/guest)
[ "$ticks" = "$(seq "$(echo "$ticks" | tail -1)")" ] || failed "ticks are missing or doubled: $(echo $ticks)"
sed -n 's/^GUEST tick [0-9]* uptime \([0-9]*\)[.0-9]* date \([0-9]*\)$/\1 \2/p' /tmp/guest | awk '
    NR > 1 && ($1 < up || $1 > up + 20 || $2 < date || $2 > date + 20) { print "from " up " " date " to " $1 " " $2; bad = 1 }
    { up = $1; date = $2 } END { exit bad }' >/tmp/jumps || failed "its clocks jump: $(cat /tmp/jumps)"
ok "$(echo "$ticks" | tail -1) ticks, one after the other, and no clock jumps"
grep -q "GUEST disk ok" /tmp/guest || failed "$(grep 'GUEST disk' /tmp/guest)"
grep -q "GUEST memory ok" /tmp/guest || failed "$(grep 'GUEST memory' /tmp/guest)"
grep -q "GUEST complaints 0" /tmp/guest || failed "its kernel complains: $(grep -A20 'GUEST complaints' /tmp/all)"
ok "$(sed -n 's/^GUEST \(disk ok.*\)/\1/p' /tmp/guest); its kernel has no complaint; clock source $(sed -n 's/^GUEST clocksource //p' /tmp/guest)"
grep -q "GUEST rng ok" /tmp/guest || failed "$(grep 'GUEST rng' /tmp/guest)"
dmesg | tail -n +$((before + 1)) | grep -iE 'bug:|call trace' && failed "the host's kernel complains"
cp --sparse=always /tmp/disk /collect/disk
ok "done in the test host"
