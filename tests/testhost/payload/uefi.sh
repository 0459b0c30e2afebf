#!/bin/bash
# Runs in the test host: a disk with the distribution's own shim, GRUB and kernel boots by stock UEFI firmware. Every check prints "ok: ..." or ends with "FAILED: ...".
set -u
here=/payload/uefi
vmmctl=/payload/vmmctl/vmmctl
failed() { echo "FAILED: $*"; tail -c 3000 /tmp/console 2>/dev/null | cat -v; cat /tmp/errors 2>/dev/null; exit 1; }
mkdir -p /usr/share/OVMF
before=$(dmesg | wc -l)
disk=/tmp/disk
cp $here/disk $disk

"$vmmctl" run --disk /tmp/disk </dev/null >/tmp/console 2>/tmp/errors && failed "a VM without firmware started"
grep -q "package ovmf" /tmp/errors || failed "no word of the package"
echo "ok: without the firmware the error names the package"

cp $here/OVMF_*.fd /usr/share/OVMF/
run() { # lines of the spec, then options
    local lines=$1
    shift
    cat >/tmp/vm.yaml <<END
name: web1
memory: 512MiB
cpus: 2
rng: true
boot: {firmware: uefi, variables: /tmp/variables.fd}
disks: [{path: $disk}]
smbios: {serial: ds=nocloud;s=http://198.51.100.1/, uuid: 6b29fc40-ca47-1067-b31d-00dd010662da, oemStrings: ["io.vmm.test:a b"]}
$lines
END
    start=$SECONDS
    timeout -k 5 600 "$vmmctl" run -f /tmp/vm.yaml "$@" </dev/null >/tmp/console 2>/tmp/errors
    result=$?
    took=$((SECONDS - start))
}
told() { grep -aq "GUEST $1" /tmp/console; }

run "" --no-reboot
told "efi 64 cpus 2" || failed "the guest did not reach user space (result $result)"
told kept || failed "the guest kept no variable"
told found && failed "the guest went on after its reboot in spite of --no-reboot"
[ $result = 0 ] || failed "vmmctl ended with $result after the guest rebooted"
grep -a "GUEST says" /tmp/console
told "dmi Vmm Virtual machine serial ds=nocloud;s=http://198.51.100.1/ uuid 6b29fc40-ca47-1067-b31d-00dd010662da oem io.vmm.test:a b" \
    || failed "what SMBIOS says is $(grep -a 'GUEST dmi' /tmp/console)"
told "debug port 0xe9" && grep -q "^vmmctl: firmware: guest speaks" /tmp/errors || failed "what the guest wrote to the debug port is not told: $(cat /tmp/errors)"
echo "ok: firmware, shim, GRUB and kernel to user space, SMBIOS, the debug port, and an end at the reboot in $took s"
run ""
told "found persistent" || failed "the variable is gone (result $result)"
[ $result = 0 ] || failed "vmmctl ended with $result after the guest powered off"
grep -a "GUEST" /tmp/console
echo "ok: the variable is still there, and the guest powers off, in $took s"
rm /tmp/variables.fd
run ""
told kept && told "found persistent" || failed "the guest did not go on after its reboot, with its variable (result $result)"
[ $result = 0 ] || failed "vmmctl ended with $result after the guest powered off"
grep -q "web1: the guest rebooted and starts again" /tmp/errors || failed "no word of the reboot: $(cat /tmp/errors)"
echo "ok: one run goes on through a reboot, with the variable, to the power-off in $took s"

other() { # DISK
    disk=/tmp/other
    cp "$here/$1" $disk
    run ""
    [ $result = 0 ] || failed "vmmctl ended with $result for the disk with $1"
}
other systemd-boot
told "by systemd-boot" || failed "systemd-boot did not start the kernel"
told "end by  *efi 64 cpus 2 dmi Virtual machine" || failed "kexec did not come to the other kernel"
echo "ok: $(tr -d '\r' </tmp/console | sed -n 's/^GUEST by //p') starts the kernel, which goes on in another one by kexec, in $took s"
other uki
told "end by systemd-stub.* efi 64 cpus 2" || failed "the unified kernel image did not start"
echo "ok: a unified kernel image ($(tr -d '\r' </tmp/console | sed -n 's/^GUEST end by \(.*\) efi.*/\1/p')), in $took s"

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
    id=$(basename /var/lib/vmm/variables/*.fd .fd)
    sleep 5
    rm -rf /srv/saved
    "$vmmctl" vm save g /srv/saved || failed "save: $(tail -5 /tmp/vmmd.log)"
    "$vmmctl" vm restore /srv/saved || failed "restore: $(tail -5 /tmp/vmmd.log)"
    end=$((SECONDS + 600))
    until "$vmmctl" -o json vm show g | grep -qiE '"state": *"(stopped|failed|crashed)"'; do
        [ $SECONDS -lt $end ] || { tail -20 /tmp/vmmd.log; "$vmmctl" vm show g; failed "the VM does not end"; }
        sleep 1
    done
    "$vmmctl" -o json vm show g | grep -qiE '"state": *"stopped"' || failed "$("$vmmctl" vm show g; "$vmmctl" vm logs g)"
    told "dmi Vmm Virtual machine serial  uuid $id oem" \
        || failed "the UUID is not the VM's: $(grep -a 'GUEST dmi' /tmp/console), not $id"
    grep -q "firmware: guest speaks" /tmp/vmmd.log || failed "what the guest wrote to the debug port is not in vmmd's log: $(tail -20 /tmp/vmmd.log)"
    grep -aq "GUEST found persistent" /tmp/console || failed "vmmd: the variable is gone: $("$vmmctl" vm logs g | tail -20)"
    "$vmmctl" vm delete g || failed "delete"
    [ -z "$(ls /var/lib/vmm/variables)" ] || failed "variables are left"
    echo "ok: vmmd: saved amid the firmware, restored, rebooted, the variable found, powered off, nothing left"
fi
dmesg | tail -n +$((before + 1)) | grep -iE 'bug:|call trace' && failed "the host's kernel complains"
echo "ok: done in the test host"
