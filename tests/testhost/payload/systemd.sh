#!/bin/bash
# Runs in the test host under systemd: installs the package, and takes vmmd through its life as a service: socket activation, restart, watchdog, stop, upgrade, purge,
# with a VM running all the time. Where there is a stock kernel beside it, a Debian guest ends by its power button, too.
# Every check prints a line "ok: ..." or ends with "FAILED: ...".
set -u
here=/payload/systemd
begin=$SECONDS
ok() { echo "ok ($((SECONDS - begin)) s): $*"; }
failed() {
    echo "FAILED: $*"
    systemctl status --no-pager --full vmmd.service vmmd.socket 2>&1 | head -60
    journalctl --no-pager -u vmmd -u vmmd.socket 2>/dev/null | tail -60
    tail -30 /tmp/console 2>/dev/null
    # The emulated CPU crashes stock guests now and then: the machine's fault unless it stays so, which is for the caller to see (125 as in `run`).
    crash=$(vmmctl vm logs debian 2>/dev/null | grep -A 30 'ended: TripleFault') && echo "$crash" && exit 125
    exit 1
}
within() { # seconds, command...: true once the command is
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.3
    done
}
property() { systemctl show -P "$1" "${2:-vmmd.service}"; }
is() { [ "$(property "$1" "${3:-vmmd.service}")" = "$2" ]; }
main_pid_is_not() { # asked at once: between two questions a daemon that hung may end, and has no process for a moment
    local shown
    shown=$(systemctl show -p ActiveState,MainPID vmmd.service)
    [[ $shown == *ActiveState=active* && $shown =~ MainPID=([0-9]+) && ${BASH_REMATCH[1]} != 0 && ${BASH_REMATCH[1]} != "$1" ]]
}
worker_of() { vmmctl vm show "$1" -o json | sed -n 's/.*"workerProcessId": *\([0-9]*\).*/\1/p'; }
runs() { # VM, worker: the VM runs and is still that process
    local shown
    shown=$(vmmctl vm show "$1" -o json)
    [[ $shown =~ \"state\":\ *\"Running\" && $shown =~ \"workerProcessId\":\ *$2[,}] ]] || failed "$1 does not run in worker $2: $shown"
    kill -0 "$2" || failed "worker $2 is gone"
}
# host_goes_down SECONDS: what vmm-guests does then, told so by a systemctl that claims it.
host_goes_down() {
    mkdir -p /tmp/down.d
    printf '#!/bin/sh\ncase "$1" in is-system-running) echo stopping ;; *) exec /usr/bin/systemctl "$@" ;; esac\n' >/tmp/down.d/systemctl
    chmod 755 /tmp/down.d/systemctl
    PATH=/tmp/down.d:$PATH VMM_GUESTS_TIMEOUT=$1 sh -c "$(sed -n 's/^ExecStop=//p' /usr/lib/systemd/system/vmm-guests.service)" >/tmp/down 2>&1 || failed "vmm-guests: $(cat /tmp/down)"
}
export DEBIAN_FRONTEND=noninteractive

# Installed: the socket is there, the daemon waits for its first request.
find /etc /usr /var /run -xdev \( -path /var/lib/dpkg -o -path /var/log -o -path /var/cache \) -prune -o \( -name 'vmm*' -o -path '*/vmm/*' \) -print >/tmp/before
dpkg -i $here/vmm_*.deb >/tmp/dpkg.log 2>&1 || failed "dpkg -i: $(tail -5 /tmp/dpkg.log)"
echo 'storage: /' >>/etc/vmm/vmmd.yaml && echo 'blockDevices: /dev' >>/etc/vmm/vmmd.yaml
for unit in vmmd.socket vmmd.service vmm-guests.service; do systemctl is-enabled --quiet $unit || failed "$unit is not enabled"; done
is ActiveState active vmmd.socket || failed "vmmd.socket is $(property ActiveState vmmd.socket)"
is ActiveState active vmm-guests.service || failed "vmm-guests is $(property ActiveState vmm-guests.service)"
is ActiveState inactive || failed "vmmd is $(property ActiveState) before anybody asked"
[ "$(stat -c '%U:%G %a' /run/vmm/vmmd.sock)" = "root:vmm 660" ] || failed "the socket is $(stat -c '%U:%G %a' /run/vmm/vmmd.sock)"
ok "installed: the socket listens, the daemon waits"
complaints=$(systemd-analyze verify --man=no vmmd.service vmmd.socket vmm-guests.service 2>&1 | grep -i vmm)
[ -z "$complaints" ] || failed "systemd-analyze verify: $complaints"
# Exposure times ten, as --threshold wants it: 5.5 when this was written.
systemd-analyze security --no-pager --threshold=56 vmmd.service >/tmp/security || failed "the unit is more exposed than it was: $(tail -3 /tmp/security)"
grep -E "0\.[2-9]|[1-9]\.[0-9]$" /tmp/security >&2
ok "systemd-analyze: units verified; $(sed -n 's/.*\(Overall exposure.*\)/\1/p' /tmp/security)"

# A shorter watchdog than the unit's 30 s, because the test waits for it.
mkdir -p /run/systemd/system/vmmd.service.d
printf '[Service]\nWatchdogSec=20s\n' >/run/systemd/system/vmmd.service.d/test.conf
systemctl daemon-reload

# The first request starts it; active is what systemd says after READY=1 (Type=notify).
vmmctl vm list >/tmp/list || failed "the first request is not answered"
within 30 is ActiveState active || failed "vmmd is $(property ActiveState)"
is StatusErrno 0 || failed "vmmd told errno $(property StatusErrno)"
daemon=$(property MainPID)
[ "$(cat /proc/"$daemon"/comm)" = vmmd ] || failed "the main process is $(cat /proc/"$daemon"/comm)"
ok "started by its socket: $(property ActiveState) ($(property SubState)), process $daemon"

# A VM, with what a worker needs from within the unit's limits.
vmmctl vm create -f /usr/share/doc/vmm/examples/idle.yaml --start || failed "idle does not start"
worker=$(worker_of idle)
runs idle "$worker"
missing=$(vmmctl vm show idle -o json | tr -d ' \n' | sed -n 's/.*"missing":\[\([^]]*\)\].*/\1/p')
[ -z "$missing" ] || failed "the worker is not confined fully: $missing"
grep -q '/vmm/' /proc/"$worker"/cgroup || failed "the worker's cgroup: $(cat /proc/"$worker"/cgroup)"
group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/"$worker"/cgroup)
limit=$(cat "$group/memory.max")
[ "$limit" != max ] || failed "the worker's memory has no limit"
ok "a VM runs in worker $worker, fully confined, at most $limit bytes"

# Restarted: another daemon, the same VM.
systemctl daemon-reload
systemctl restart vmmd || failed "restart"
main_pid_is_not "$daemon" || failed "restart left process $daemon"
daemon=$(property MainPID)
[ "$daemon" -gt 1 ] || failed "no main process after the restart"
runs idle "$worker"
[ "$(cat "$group/memory.max")" = "$limit" ] || failed "the worker's memory limit is $(cat "$group/memory.max") now"
ok "restarted: the VM went on"

# A daemon that hangs: systemd hears nothing, ends it, starts another.
told=$(property WatchdogTimestampMonotonic)
within 20 eval '! is WatchdogTimestampMonotonic '"$told" || failed "a healthy daemon says nothing to the watchdog"
is MainPID "$daemon" && is NRestarts 0 || failed "a healthy daemon was ended: $(property Result)"
kill -STOP "$daemon"
within 90 main_pid_is_not "$daemon" || failed "the daemon hangs, and stays: $(property ActiveState) $(property Result)"
is NRestarts 1 || failed "NRestarts is $(property NRestarts)"
daemon=$(property MainPID)
runs idle "$worker"
journalctl --no-pager -u vmmd | grep -qi 'watchdog timeout' || failed "the journal tells of no watchdog"
ok "a daemon that hung was ended by the watchdog and started anew; the VM went on"

rm -r /run/systemd/system/vmmd.service.d
systemctl daemon-reload

# Stopped: the VM goes on, the next request starts the daemon.
systemctl stop vmmd 2>/dev/null || failed "stop" # it warns of the socket, which is meant to start it again
is ActiveState inactive && is Result success || failed "after stop it is $(property ActiveState), $(property Result)"
kill -0 "$worker" || failed "the stop ended the VM"
runs idle "$worker"
daemon=$(property MainPID)
[ "$daemon" -gt 1 ] || failed "nothing was started"
ok "stopped, and started again by a request; the VM went on"

# Upgraded under the VM.
dpkg -i $here/vmm_*.deb >/tmp/dpkg.log 2>&1 || failed "dpkg -i, again: $(tail -5 /tmp/dpkg.log)"
within 60 main_pid_is_not "$daemon" || failed "the upgrade did not replace the daemon"
runs idle "$worker"
ok "upgraded: another daemon, the VM went on"

# What the journal has.
journal() { journalctl --no-pager -u vmmd "$@"; }
journal -o json >/tmp/journal
grep '"MESSAGE":"[^"]*listens on /run/vmm/vmmd.sock' /tmp/journal | grep -c '"PRIORITY":"6"' >/dev/null || failed "the journal has no record of vmmd with its priority"
journal | grep -q "adopted idle, worker $worker" || failed "the journal tells of no adoption"
# A machine whose processors are busy elsewhere makes a daemon ask a worker twice: that it waits is told, and no fault.
bad=$(journal -p warning -o cat | grep -viE 'watchdog|signal|failed with result|killed|core-dump|main process exited|does not answer yet')
[ -z "$bad" ] || failed "warnings in the journal: $bad"
ok "journal: $(journal | wc -l) lines, $(journal | grep -c 'adopted idle') adoptions, no warning of vmmd"

# A stock guest as users have them: a tap, a disk that comes and goes, the power button; and the daemon restarted beside it.
if [ -f $here/kernel ]; then
    ip tuntap add tap0 mode tap vnet_hdr && ip addr add 192.0.2.1/24 dev tap0 && ip link set tap0 up || failed "no tap"
    truncate -s 16M /tmp/data.raw
    cat >/tmp/debian.yaml <<END
name: debian
cpus: 2
memory: 256MiB
boot: {kernel: $here/kernel, initrd: $here/initrd, cmdline: "console=ttyS0 quiet panic=-1"}
nets: [{tap: tap0}]
END
    vmmctl vm create -f /tmp/debian.yaml --start || failed "debian does not start"
    mkfifo /tmp/nothing && exec 7<>/tmp/nothing # an input that stays open and says nothing
    vmmctl vm console debian <&7 >/tmp/console 2>&1 &
    console=$!
    within 180 grep -q 'GUEST waits' /tmp/console || failed "debian does not come up: $(vmmctl vm logs debian)"
    busybox ping -c 3 -w 30 192.0.2.11 | grep -q ' 0% packet loss' || failed "ping"
    vmmctl vm stats debian | grep -qE '^net0 .*kernel' || failed "vhost-net is not used: $(vmmctl vm stats debian)"
    debian=$(worker_of debian)
    vmmctl vm attach debian --disk /tmp/data.raw,serial=data || failed "attach a disk"
    within 60 grep -q 'GUEST disk verified' /tmp/console || failed "the guest does not verify the disk"
    systemctl restart vmmd || failed "restart beside a stock guest"
    runs debian "$debian"
    kill $console 2>/dev/null # it went with the daemon; another one begins with what was said before
    vmmctl vm console debian <&7 >/tmp/console 2>&1 &
    console=$!
    vmmctl vm detach debian disk0 --timeout 60 || failed "detach the disk"
    within 30 grep -q 'GUEST disk gone, complaints: 0' /tmp/console || failed "the guest still has the disk, or complains"
    host_goes_down 120
    grep -q '^debian is stopped' /tmp/down || failed "debian is not asked when the host goes down: $(cat /tmp/down)"
    kill $console 2>/dev/null
    vmmctl vm show debian | grep -q PowerOff || failed "$(vmmctl vm show debian; vmmctl vm logs debian)"
    vmmctl vm delete debian || failed "delete debian"
    ok "a stock Debian guest: ping over a tap, a disk came, was verified and went, a restart of the daemon, powered off by its button when the host went down"
    vmmctl vm start idle || failed "idle does not start again"
    worker=$(worker_of idle)
fi

# The guests when the host goes down, and when it does not.
systemctl stop vmm-guests || failed "stop vmm-guests"
runs idle "$worker"
host_goes_down 2
grep -q '^idle is stopped' /tmp/down || failed "idle runs when the host has gone down: $(cat /tmp/down)"
ok "vmm-guests: a guest goes on when the unit is stopped, and ends when the host goes down"

# Gone.
vmmctl vm delete idle || failed "delete idle"
within 10 eval '! kill -0 '"$worker"' 2>/dev/null' || failed "worker $worker is left"
apt-get purge -y -q vmm >/tmp/dpkg.log 2>&1 || failed "apt-get purge: $(tail -5 /tmp/dpkg.log)"
left=$(find /etc /usr /var /run -xdev \( -path /var/lib/dpkg -o -path /var/log -o -path /var/cache \) -prune -o \( -name 'vmm*' -o -path '*/vmm/*' \) -print | grep -vxF -f /tmp/before)
[ -z "$left" ] || failed "a purge leaves: $left"
! systemctl cat vmmd.service >/dev/null 2>&1 || failed "systemd still knows vmmd.service"
! getent group vmm >/dev/null || failed "a purge leaves the group vmm"
! pgrep -x 'vmmd|vmm-worker' || failed "a purge leaves processes"
find /sys/fs/cgroup -type d \( -name 'vmm*' -o -path '*/vmm/*' \) | grep . && failed "a purge leaves cgroups"
failed_units=$(systemctl list-units --failed --plain --no-legend)
[ -z "$failed_units" ] || failed "failed units: $failed_units"
ok "purged: nothing left"
