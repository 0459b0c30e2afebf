#!/bin/bash
# Runs in the test host: an image as distributions publish them, under vmmctl run and under vmmd. Every check prints "ok: ..." or ends with "FAILED: ...".
set -u
here=/payload/image
ctl=/payload/vmmctl/vmmctl
store=$here/store
address=198.51.100.2 # of the host, and so of its guests
vm='' host_lines=$(dmesg | wc -l)
: >/tmp/complaints
: >/tmp/console
failed() {
    echo "FAILED: $*"
    echo "---- end of the console"
    tail -c 4000 /tmp/console | tr -d '\r' | cat -v
    echo "---- errors"
    tail -20 /tmp/errors /tmp/ssh /tmp/vmmd.log 2>/dev/null
    exit 1
}
ok() { echo "ok: $*, at $SECONDS s"; }
user() { setpriv --reuid 1000 --regid 1000 --clear-groups env HOME=/tmp/user "$@"; }
guest() { # WORDS...: in the guest, by ssh on the published port
    timeout 600 ssh -i /tmp/key -p 2222 -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=/tmp/hosts -o ConnectTimeout=20 -o LogLevel=ERROR \
        debian@127.0.0.1 "$@" </dev/null
}
start() {
    began=$SECONDS
    user "$ctl" run $store/web1.qcow2 --cpus 2 --memory 1GiB --net user --publish 127.0.0.1:2222:22 --ssh-key /tmp/key.pub --hostname web1 \
        </dev/null >>/tmp/console 2>>/tmp/errors &
    vm=$!
}
comes() { # SECONDS: ssh answers
    local end=$((SECONDS + $1))
    until guest true 2>/tmp/ssh; do
        kill -0 $vm 2>/dev/null || { wait $vm; failed "vmmctl run ended with $?"; }
        [ $SECONDS -lt $end ] || failed "ssh does not answer within $1 s"
        sleep 3
    done
}
goes() { # WHAT SECONDS: vmmctl run ends, with 0
    local end=$((SECONDS + $2))
    while kill -0 $vm 2>/dev/null; do
        [ $SECONDS -lt $end ] || failed "vmmctl run does not end after a $1"
        sleep 1
    done
    wait $vm
    result=$?
    [ $result = 0 ] || failed "vmmctl run ended with $result after a $1"
}
# What the guest's kernel says that names a device or a table of ours. Judged at the end, so that the rest is seen as well.
listens() { # WHEN WORDS...: the command that runs something as root in the guest
    local when=$1
    shift
    "$@" dmesg --level=emerg,alert,crit,err,warn 2>/dev/null | grep -viE "clocksource: .*tsc|tsc: marking tsc unstable|timekeeping watchdog" >/tmp/said
    sed "s/^/$when, its kernel: /" /tmp/said
    grep -iE "acpi|pci|virtio|\bvd[a-z]|ttyS|8250|i8042|rtc|efi\b|pvpanic|vmgenid|firmware|bug:|call trace|lockup|stall" /tmp/said >>/tmp/complaints
}

# A newcomer's first command.
by_run() {
    user "$ctl" disk create $store/web1.qcow2 --backing $here/stock.qcow2 --backing-format qcow2 --size 3GiB >/tmp/errors 2>&1 || failed "disk create: $(cat /tmp/errors)"
    start
    comes 1200
    ok "ssh answers $((SECONDS - began)) s after vmmctl run, by $(guest 'uname -sr; . /etc/os-release; echo "of $PRETTY_NAME"' | tr '\n' ' ')"
    [ "$(guest hostname)" = web1 ] || failed "its name is '$(guest hostname)'"
    ok "its name is web1"
    guest cloud-init status --wait >/tmp/said 2>&1
    result=$?
    [ $result = 0 ] && grep -q 'status: done' /tmp/said || failed "cloud-init status $result: $(cat /tmp/said; guest cloud-init status --long)"
    ok "cloud-init status: done, $((SECONDS - began)) s after vmmctl run; $(guest cloud-id)"
    guest systemctl is-system-running --wait >/tmp/said 2>&1 || failed "the system is $(cat /tmp/said): $(guest systemctl --failed)"
    [ -z "$(guest systemctl --failed --no-legend)" ] || failed "$(guest systemctl --failed)"
    ok "systemctl --failed is empty, the system is $(cat /tmp/said), $((SECONDS - began)) s after vmmctl run; $(guest systemd-analyze time | head -1)"
    guest ip -4 route show default proto dhcp >/tmp/said # not the address's flag "dynamic": passt's leases have no end
    grep -q "src $address" /tmp/said || failed "no address by DHCP: $(cat /tmp/said; guest ip addr; guest ip route)"
    ok "its address came by DHCP: $(cat /tmp/said)"
    size=$(guest df --output=size -m / | tail -1)
    [ "$size" -gt 2500 ] || failed "its file system has $size MiB on a disk of 3 GiB"
    ok "its file system has grown with the disk, to $((size)) MiB"
    [ "$(guest nproc)" = 2 ] || failed "$(guest nproc) processors"
    listens "first start" guest sudo

    # A kernel package in the guest writes GRUB's configuration anew, and the next start goes by that one.
    guest sudo update-grub >/tmp/said 2>&1 || failed "update-grub: $(cat /tmp/said)"
    was=$(guest cat /proc/sys/kernel/random/boot_id)
    guest sudo systemctl reboot 2>/dev/null
    began=$SECONDS
    until now=$(guest cat /proc/sys/kernel/random/boot_id 2>/tmp/ssh) && [ -n "$now" ] && [ "$now" != "$was" ]; do
        kill -0 $vm 2>/dev/null || { wait $vm; failed "vmmctl run ended with $? after a reboot"; }
        [ $((SECONDS - began)) -lt 1200 ] || failed "it does not come back after a reboot"
        sleep 3
    done
    grep -q "the guest rebooted and starts again" /tmp/errors || failed "no word of the reboot"
    [ "$(guest hostname)" = web1 ] || failed "its name is '$(guest hostname)' after the reboot"
    ok "rebooted by GRUB's own configuration ($(guest cat /proc/cmdline)): the same vmmctl run goes on, ssh with the same host key after $((SECONDS - began)) s"
    guest systemctl is-system-running --wait >/tmp/said 2>&1 || failed "the system is $(cat /tmp/said): $(guest systemctl --failed)"
    listens "second start" guest sudo
    guest sudo systemctl poweroff 2>/dev/null
    goes power-off 400
    ok "powered off, vmmctl run ended with 0"
    [ -z "$(pgrep -x 'passt.*')" ] || failed "passt is left"
    "$ctl" disk check $store/web1.qcow2 >/tmp/said 2>&1 || failed "disk check: $(cat /tmp/said)"
    ok "its disk is sound: $(tail -1 /tmp/said)"
}

# Under vmmd: the image is imported, and the standard agent, which the image ships, tells of the guest.
answers() { # SECONDS
    local end=$((SECONDS + $1))
    until "$ctl" vm exec web2 -- true >/tmp/said 2>&1; do
        "$ctl" -o json vm show web2 | grep -qiE '"state": *"running"' || failed "it does not run: $("$ctl" vm show web2; "$ctl" vm logs web2 | tail -30)"
        [ $SECONDS -lt $end ] || failed "the agent does not answer: $(cat /tmp/said; "$ctl" vm list)"
        sleep 3
    done
}
by_vmmd() {
    mkdir -p /run/vmm $here/var /var/lib/vmm
    mount --bind $here/var /var/lib/vmm
    /payload/vmmd/vmmd --storage $here >/tmp/vmmd.log 2>&1 &
    daemon=$!
    for _ in $(seq 300); do "$ctl" vm list >/dev/null 2>&1 && break; sleep 0.2; done
    "$ctl" image import $here/stock.qcow2 --name stock >/tmp/said 2>&1 || failed "image import: $(cat /tmp/said)"
    ok "image import: $(tail -1 /tmp/said)"
    cat >/tmp/web2.yaml <<END
name: web2
memory: 1GiB
cpus: 2
guestAgent: true
nets: [{user: {publish: ["127.0.0.1:2223:22"]}}]
disks:
- {image: stock, size: 3GiB}
- {path: $here/seed.img, readOnly: true}
END
    began=$SECONDS
    "$ctl" vm create -f /tmp/web2.yaml --start >/tmp/said 2>&1 || failed "vm create: $(cat /tmp/said)"
    mkfifo /tmp/input && exec 7<>/tmp/input
    "$ctl" vm console web2 <&7 >/tmp/console 2>&1 &
    console=$!
    answers 1200
    ok "vm exec web2 -- true, $((SECONDS - began)) s after vm create"
    "$ctl" vm exec web2 --wait 600 -- cloud-init status --wait >/tmp/said 2>&1 || failed "cloud-init: $(cat /tmp/said)"
    "$ctl" vm guest web2 >/tmp/said 2>&1 || failed "vm guest: $(cat /tmp/said)"
    grep -q "$address/" /tmp/said && grep -qE '^host name: *web2' /tmp/said || failed "vm guest says $(cat /tmp/said)"
    ok "vm guest: $(grep -E "^(host name|system|kernel)|$address/" /tmp/said | tr -s ' ' | tr '\n' ';')"
    "$ctl" vm exec web2 --wait 600 -- systemctl is-system-running --wait >/tmp/said 2>&1 || failed "the system is $(cat /tmp/said)"
    listens "under vmmd" "$ctl" vm exec web2 --
    was=$("$ctl" vm exec web2 -- cat /proc/sys/kernel/random/boot_id)
    "$ctl" vm exec web2 -- systemctl reboot >/dev/null 2>&1
    began=$SECONDS
    until now=$("$ctl" vm exec web2 -- cat /proc/sys/kernel/random/boot_id 2>/dev/null) && [ -n "$now" ] && [ "$now" != "$was" ]; do
        [ $((SECONDS - began)) -lt 1200 ] || failed "it does not come back after a reboot: $("$ctl" vm list)"
        sleep 3
    done
    ok "rebooted under vmmd: the agent answers again after $((SECONDS - began)) s"
    "$ctl" vm stop web2 --graceful --timeout 300 >/tmp/said 2>&1 || failed "vm stop: $(cat /tmp/said)"
    kill $console 2>/dev/null
    "$ctl" vm delete web2 >/tmp/said 2>&1 && "$ctl" image delete stock >>/tmp/said 2>&1 || failed "delete: $(cat /tmp/said)"
    [ -z "$(find $here/var/machines $here/var/library $here/var/variables -type f 2>/dev/null)" ] || failed "left: $(find $here/var -type f)"
    kill -TERM $daemon
    wait $daemon
    ok "stopped; the VM, its disk, its variables and the image are gone"
}

# A host with the packages that docs/images.md and docs/networks.md name, and a network that leads nowhere.
rm $here/room
tar -C $here/programs -c . | tar -C / -x --skip-old-files --keep-directory-symlink || failed "no programs"
mkdir -p /usr/share/OVMF $store /tmp/user
cp $here/OVMF_*.fd /usr/share/OVMF/
chmod 666 /dev/kvm
chown 1000:1000 $store /tmp/user
modprobe dummy
ip link add uplink type dummy && ip addr add $address/24 dev uplink && ip link set uplink up && ip route add default via 198.51.100.1 || failed "no network in the test host"
: >/etc/resolv.conf # no name server: what asks for names learns at once that there are none
ssh-keygen -q -t ed25519 -N '' -f /tmp/key || failed "ssh-keygen"

for part in ${*:-run vmmd}; do "by_$part"; done

[ ! -s /tmp/complaints ] || failed "its kernel complains about us: $(cat /tmp/complaints)"
ok "no complaint about our devices or tables in the guests' kernels"
dmesg | tail -n +$((host_lines + 1)) | grep -iE 'bug:|call trace' && failed "the host's kernel complains"
ok "done in the test host"
