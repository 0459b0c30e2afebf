#!/bin/bash
# Runs in the test host: a disk with the distribution's own shim, GRUB and kernel boots by stock UEFI firmware. Every check prints "ok: ..." or ends with "FAILED: ...".
set -u
here=/payload/uefi
vmmctl=/payload/vmmctl/vmmctl
failed() { echo "FAILED: $*"; tail -c 3000 /tmp/console 2>/dev/null | cat -v; cat /tmp/errors 2>/dev/null; exit 1; }
mkdir -p /usr/share/OVMF
before=$(dmesg | wc -l)
cp $here/disk /tmp/disk

"$vmmctl" run --disk /tmp/disk </dev/null >/tmp/console 2>/tmp/errors && failed "a VM without firmware started"
grep -q "package ovmf" /tmp/errors || failed "no word of the package"
echo "ok: without the firmware the error names the package"

cp $here/OVMF_*.fd /usr/share/OVMF/
run() { # more lines of the spec
    cat >/tmp/vm.yaml <<END
memory: 512MiB
cpus: 2
rng: true
boot: {firmware: uefi, variables: /tmp/variables.fd}
disks: [{path: /tmp/disk}]
$1
END
    start=$SECONDS
    timeout -k 5 300 "$vmmctl" run -f /tmp/vm.yaml </dev/null >/tmp/console 2>/tmp/errors
    result=$?
    took=$((SECONDS - start))
}

run ""
grep -aq "GUEST efi 64 cpus 2" /tmp/console || failed "the guest did not reach user space (result $result)"
grep -aq "GUEST kept" /tmp/console || failed "the guest kept no variable"
grep -a "GUEST says" /tmp/console
echo "ok: firmware, shim, GRUB and kernel to user space and a reboot in $took s"
run ""
grep -aq "GUEST found persistent" /tmp/console || failed "the variable is gone (result $result)"
[ $result = 0 ] || failed "vmmctl ended with $result after the guest powered off"
grep -a "GUEST" /tmp/console
echo "ok: the variable is still there, and the guest powers off, in $took s"

# Under vmmd: a confined worker, a reboot that starts it anew, a save and a restore; the variables are vmmd's own and go with the VM.
if [ -d /payload/vmmd ]; then
    mkdir -p /run/vmm /var/lib/vmm
    mkfifo /tmp/input && exec 7<>/tmp/input
    cp $here/disk /srv/disk
    /payload/vmmd/vmmd --storage /srv >/tmp/vmmd.log 2>&1 &
    for _ in $(seq 100); do "$vmmctl" vm list >/dev/null 2>&1 && break; sleep 0.2; done
    printf 'name: g\nmemory: 512MiB\ncpus: 2\ndisks: [{path: /srv/disk}]\n' >/tmp/g.yaml
    "$vmmctl" vm create -f /tmp/g.yaml --start || failed "vm create: $(tail -5 /tmp/vmmd.log)"
    : >/tmp/console
    while :; do "$vmmctl" vm console g <&7; sleep 0.5; done >>/tmp/console 2>&1 &
    [ "$(stat -c '%a %s' /var/lib/vmm/variables/*.fd)" = "600 540672" ] || failed "variables: $(ls -l /var/lib/vmm/variables)"
    sleep 5
    rm -rf /srv/saved
    "$vmmctl" vm save g /srv/saved || failed "save: $(tail -5 /tmp/vmmd.log)"
    "$vmmctl" vm restore /srv/saved || failed "restore: $(tail -5 /tmp/vmmd.log)"
    end=$((SECONDS + 250))
    until "$vmmctl" -o json vm show g | grep -qiE '"state": *"(stopped|failed|crashed)"'; do
        [ $SECONDS -lt $end ] || { tail -20 /tmp/vmmd.log; "$vmmctl" vm show g; failed "the VM does not end"; }
        sleep 1
    done
    "$vmmctl" -o json vm show g | grep -qiE '"state": *"stopped"' || failed "$("$vmmctl" vm show g; "$vmmctl" vm logs g)"
    grep -aq "GUEST found persistent" /tmp/console || failed "vmmd: the variable is gone: $("$vmmctl" vm logs g | tail -20)"
    "$vmmctl" vm delete g || failed "delete"
    [ -z "$(ls /var/lib/vmm/variables)" ] || failed "variables are left"
    echo "ok: vmmd: saved amid the firmware, restored, rebooted, the variable found, powered off, nothing left"
fi
dmesg | tail -n +$((before + 1)) | grep -iE 'bug:|call trace' && failed "the host's kernel complains"
echo "ok: done in the test host"
