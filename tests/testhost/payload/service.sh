#!/bin/bash
# Runs in the test host, as a user would: installs the package, starts vmmd as its unit does, runs two Debian guests on a bridge, logs into one with ssh, adds a
# disk and a network device to it while it runs (fio is the judge), takes them away, changes the memory of a virtual node, presses the power buttons. Every check prints a line "ok: ..." or ends with "FAILED: ...".
set -u
here=/payload/service
. $here/kvm-trace.sh
ok() { echo "ok: $*"; }
failed() {
    echo "FAILED: $*"
    for name in a b; do echo "--- console of $name"; tail -25 "/tmp/$name.log"; vmmctl vm logs "$name"; done 2>/dev/null
    echo "--- vmmd"; tail -25 /tmp/vmmd.log 2>/dev/null
    show_trace
    exit 1
}
said() { # file, text, seconds
    for _ in $(seq $(($3 * 5))); do grep -q "$2" "$1" 2>/dev/null && return; sleep 0.2; done
    return 1
}

dpkg -i "$here"/vmm_*.deb >/tmp/dpkg.log 2>&1 || failed "dpkg -i: $(tail -5 /tmp/dpkg.log)"
ok "installed $(dpkg-query -W vmm | tr '\t' ' ')"
start_trace
modprobe -a bridge loop || failed "no bridge or no loop devices in this kernel"
ip link add vmbr0 type bridge && ip addr add 192.0.2.1/24 dev vmbr0 && ip link set vmbr0 up
for tap in tapa tapb tapc; do
    ip tuntap add "$tap" mode tap vnet_hdr && ip link set "$tap" master vmbr0 up || failed "tap $tap"
done
# No systemd runs here: the folders and the command line of the unit.
mkdir -p /run/vmm /var/lib/vmm
echo 'balancer: on' >>/etc/vmm/vmmd.yaml
echo 'balancerInterval: 5' >>/etc/vmm/vmmd.yaml
echo 'storage: /' >>/etc/vmm/vmmd.yaml
echo 'blockDevices: /dev' >>/etc/vmm/vmmd.yaml
command=$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/vmmd.service)
$command >/tmp/vmmd.log 2>&1 &
daemon=$!
for _ in $(seq 300); do vmmctl vm list >/dev/null 2>&1 && break; sleep 0.2; done
vmmctl vm list >/dev/null 2>&1 || failed "vmmd does not answer"
ok "vmmd runs: $command"
vmmctl host show || failed "host show"

work=/tmp/vms
mkdir -p $work /mnt/tools
truncate -s 32M $work/scratch.raw $work/data.raw
# A guest's root disk with keys made here; a second copy lends this host its ssh.
cp --sparse=always $here/guest.img $work/root.raw
mount -o loop $work/root.raw /mnt/tools || failed "the guest's disk cannot be mounted"
chroot /mnt/tools sh -c 'ssh-keygen -q -A; ssh-keygen -q -t ed25519 -N "" -f /root/key; mkdir -p -m 700 /root/.ssh; cp /root/key.pub /root/.ssh/authorized_keys' || failed "no keys"
cp /mnt/tools/root/key $work/key
cp $here/vmm-guest-agent /mnt/tools/usr/sbin/
umount /mnt/tools
mount -o loop,ro $here/guest.img /mnt/tools && mount --bind /dev /mnt/tools/dev && mount -t tmpfs none /mnt/tools/tmp && cp $work/key /mnt/tools/tmp/ || failed "no ssh"
in_a() { # runs a command in guest a
    timeout "${limit:-240}" chroot /mnt/tools ssh -i /tmp/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=60 root@192.0.2.11 "$@"
}
cat >$work/a.yaml <<END
name: a
boot: {kernel: /payload/service/kernel, initrd: /payload/service/initrd, cmdline: "console=ttyS0 quiet panic=-1 name=a address=192.0.2.11 peer=192.0.2.12"}
numa:
  vnodes:
    - {cpus: 0, memory: 256MiB, hostNodes: 0}
    - {cpus: 1, memory: 256MiB, maxMemory: 768MiB, hostNodes: 1}
disks:
  - {path: root.raw, serial: root}
  - {path: scratch.raw, serial: scratch}
nets:
  - {tap: tapa}
balloon: true
vsock: {cid: 5, path: a.vsock}
balance: true
END
cat >$work/b.yaml <<END
name: b
memory: 256MiB
boot: {kernel: /payload/service/kernel, initrd: /payload/service/initrd, cmdline: "console=ttyS0 quiet panic=-1 name=b address=192.0.2.12 peer=192.0.2.11"}
nets: [{tap: tapb}]
restart: on-failure
END
consoles=()
mkfifo /tmp/nothing && exec 7<>/tmp/nothing # an input that stays open and says nothing
for name in a b; do
    vmmctl vm create -f "$work/$name.yaml" --start || failed "$name does not start"
    # A VM that is started again after a fault has another worker, and its console has to be opened again.
    (while sleep 1; do vmmctl vm console "$name" <&7 2>/dev/null; done) >"/tmp/$name.log" &
    consoles+=($!)
done
vmmctl vm show a -o json
for name in a b; do
    said "/tmp/$name.log" "GUEST ping" 300 || failed "$name did not come up"
    grep -q "GUEST ping ok" "/tmp/$name.log" || failed "$name: $(grep GUEST "/tmp/$name.log")"
    ok "$name pings the other: $(grep 'GUEST . up' "/tmp/$name.log")"
done
said /tmp/a.log "GUEST memory" 60 || failed "a says nothing of its memory"
grep -q "GUEST disk verified" /tmp/a.log || failed "a's disk"
ok "a's disk verified; complaints of its kernel: $(sed -n 's/.*GUEST complaints //p' /tmp/a.log)"

# The host has vhost-net: its kernel moves the frames, until a limit comes.
vmmctl vm stats a | grep -E '^net0 .*kernel' || failed "vhost-net is not used: $(vmmctl vm stats a)"
vmmctl vm limit a net0 --operations 50000 || failed "limit net0"
vmmctl vm stats a | grep -E '^net0 .*worker' || failed "the worker has not taken over: $(vmmctl vm stats a)"

# As a user: ssh, a disk and a network device that come and go.
said /tmp/a.log "GUEST sshd" 120 || failed "a has no sshd"
in_a true || failed "ssh"
ok "ssh into a: $(in_a 'uname -r; . /etc/os-release; echo $PRETTY_NAME' | tr '\n' ' ')"
in_a numactl -H >/tmp/numactl || failed "numactl"
in_a lscpu | grep -E '^(CPU\(s\)|NUMA|Socket|Core|Thread)' >/tmp/lscpu
cat /tmp/numactl /tmp/lscpu
for line in 'available: 2 nodes \(0-1\)' 'node 0 cpus: 0' 'node 1 cpus: 1' ' +0: +10 +21 *' ' +1: +21 +10 *'; do
    grep -qxE "$line" /tmp/numactl || failed "numactl -H says nothing like '$line'"
done
for line in 'CPU\(s\): +2' 'NUMA node\(s\): +2' 'NUMA node0 CPU\(s\): +0' 'NUMA node1 CPU\(s\): +1' 'Socket\(s\): +2'; do
    grep -qxE "$line" /tmp/lscpu || failed "lscpu says nothing like '$line'"
done
ok "numactl -H and lscpu of a say what its spec does"
vmmctl vm attach a --disk $work/data.raw,serial=data || failed "attach a disk"
vmmctl vm attach a --net tap=tapc || failed "attach a network device"
vmmctl vm devices a
in_a 'for i in $(seq 100); do [ -b /dev/vdc ] && [ -d /sys/class/net/eth1 ] && exit 0; sleep 0.2; done; exit 1' || failed "the guest does not see them: $(in_a 'lsblk; ls /sys/class/net; dmesg | tail -20')"
in_a 'lsblk -dno NAME,SIZE,SERIAL /dev/vdc'
in_a fio --name=hot --filename=/dev/vdc --size=8M --rw=randwrite --bs=4k --direct=1 --ioengine=psync --verify=crc32c --do_verify=1 --verify_fatal=1 --output-format=terse >/tmp/fio.log 2>&1 || failed "fio --verify on the disk: $(tail -5 /tmp/fio.log)"
ok "fio --verify on the disk that was added: no error"
vmmctl vm detach a net1 --timeout 60 || failed "detach net1"
vmmctl vm detach a disk2 --timeout 60 || failed "detach disk2"
in_a '[ ! -e /dev/vdc ] && [ ! -e /sys/class/net/eth1 ]' || failed "the guest still has them"
vmmctl vm spec a | grep -q data.raw && failed "the spec still has the disk"
# Again, and for this run only.
vmmctl vm attach a --disk $work/data.raw --temporary || failed "attach again"
in_a 'for i in $(seq 100); do [ -b /dev/vdc ] && exit 0; sleep 0.2; done; exit 1' || failed "the disk did not come again"
vmmctl vm detach a disk3 --timeout 60 || failed "detach again"
complaints=$(in_a "dmesg | grep -iE 'call trace|bug:|virtio.*(fail|error)|acpi.*(error|warn)|pci.*(fail|error|no space|can.t assign)'")
[ -z "$complaints" ] || failed "the guest's kernel complains: $complaints"
ok "disk and network device came and went, twice; no complaint in the guest's log"

# The balancer: the agent tells of the guest's nodes; a hog on node 1 makes vnode 1 grow.
vmmctl host balancer
said_balancer() {
    local end=$((SECONDS + 90))
    until vmmctl host balancer | grep "$1" >/dev/null; do
        [ $SECONDS -lt $end ] || return 1
        sleep 1
    done
}
said_balancer '^a *1 .* agent ' || failed "the agent says nothing: $(vmmctl host balancer; in_a 'pgrep -a vmm-guest-agent; lsmod | grep vsock')"
# Without the page cache: it counts as available, so that a hog of what is free would leave enough.
in_a 'sync; echo 3 >/proc/sys/vm/drop_caches; free=$(awk "/MemFree/ {print int(\$4 / 1024)}" /sys/devices/system/node/node1/meminfo); mount -t tmpfs none /mnt -o size=300m && taskset -c 1 dd if=/dev/zero of=/mnt/hog bs=1M count=$((free - 16)) 2>&1 | tail -1'
said_balancer ' a vnode 1 .*: it grows: ' || failed "the balancer does nothing: $(vmmctl host balancer; tail -5 /tmp/vmmd.log)"
in_a 'umount /mnt'
vmmctl host balancer
ok "the balancer grew vnode 1 of the guest in need"
vmmctl host balancer --set off >/dev/null

# Memory of vnode 1 grows and shrinks while the guest runs.
grown=$(vmmctl vm memory a --vnode 1 --size 512MiB --timeout 90) || failed "grow: $grown"
echo "$grown"
said /tmp/a.log "GUEST memory node0 [0-9]* node1 4[0-9]\{5\} \|GUEST memory node0 [0-9]* node1 5[0-9]\{5\} " 30 || failed "the guest does not see it: $(grep 'GUEST memory' /tmp/a.log)"
ok "vnode 1 grew: $(grep 'GUEST memory' /tmp/a.log | tail -1)"
pid=$(vmmctl vm show a -o json | sed -n 's/.*"workerProcessId":\([0-9]*\).*/\1/p')
grep 'vmm:vnode' "/proc/$pid/numa_maps" | sed 's/^[0-9a-f]* //'
grep 'vmm:vnode1' "/proc/$pid/numa_maps" | grep -q 'N0=' && failed "memory of vnode 1 lies on host node 0"
grep 'vmm:vnode1.hot' "/proc/$pid/numa_maps" | grep -q 'N1=' || failed "no memory of the grown part on host node 1"
ok "all of vnode 1 lies on host node 1"
shrunk=$(vmmctl vm memory a --vnode 1 --size 256MiB --timeout 90)
shrink_status=$?
echo "$shrunk"
[ $shrink_status = 0 ] && ok "vnode 1 shrank back: $(grep 'GUEST memory' /tmp/a.log | tail -1)" || echo "not all given back (told truthfully, exit code $shrink_status)"
grep -i seccomp "/proc/$pid/status" | tr '\n' ' '; cat "/proc/$pid/cgroup"; grep -E "^(Uid|CapEff)" "/proc/$pid/status" | tr '\n' ' '
vmmctl vm stats a
kill "${consoles[@]}" # no other console after this one; what is open still listens
for name in a b; do
    vmmctl vm power-button "$name" --wait 180 || failed "$name does not heed its power button"
    vmmctl vm show "$name" | grep -q PowerOff || failed "$name: $(vmmctl vm show "$name")"
    ok "$name powered off by its button"
done
vmmctl vm logs a | tail -12
restarts=$(for name in a b; do vmmctl vm logs "$name" | grep 'ended: TripleFault'; done)
[ -z "$restarts" ] || echo "on the way: $restarts"
show_trace
kill -TERM $daemon
wait $daemon || failed "vmmd ended with $?"
umount -R /mnt/tools
pgrep vmm-worker && failed "a worker is left"
ls -d /sys/fs/cgroup/vmm/*/ 2>/dev/null && failed "a cgroup is left"
dpkg -P vmm >/tmp/dpkg.log 2>&1 || failed "dpkg -P: $(tail -5 /tmp/dpkg.log)"
[ ! -e /sys/fs/cgroup/vmm ] || failed "the purge leaves a cgroup"
ok "purged"
