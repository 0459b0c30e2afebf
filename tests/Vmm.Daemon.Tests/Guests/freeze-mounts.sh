#!/usr/bin/env bash
# Mounts for AgentFreezeTests, in a mount namespace of its own (unshare -m), and the agent over them. Usage: freeze-mounts.sh AGENT FOLDER.
# Says "ready PID"; ends, and all of it with it, when its input does or after three minutes. The agent sees these mounts only: --root gives it a mountinfo
# that has no other, above all not the machine's own.
set -euo pipefail
agent=$1
folder=$2
cd "$folder"
end() {
    kill "$pid" 2>/dev/null || true
    for place in a a/b 'c d' e; do fsfreeze -u "$folder/$place" 2>/dev/null || true; done
}
pid=
trap end EXIT
image() { # FILE PLACE
    truncate -s 24M "$1"
    mke2fs -q -t ext4 "$1"
    mkdir -p "$2"
    mount -o loop "$1" "$2"
}
mkdir small
mount -t tmpfs -o size=3M small small
image small/e.img e # first, so that it is frozen last: its image has no room for what is written into it
image a.img a
image a/b.img a/b # a file of a: b has to be frozen before a
image c.img 'c d'
image ro.img ro
mount -o remount,ro ro
mkdir bind hidden
mount --bind a bind
image hidden.img hidden
mount --bind ro hidden # which FIFREEZE would not refuse
mkdir -p root/proc/self
cp /proc/filesystems root/proc/
grep -F " $folder/" /proc/self/mountinfo >root/proc/self/all
grep -vF -e " $folder/e " -e " $folder/hidden " root/proc/self/all >root/proc/self/mountinfo
# The root of an initramfs, which is of no type that /proc/filesystems knows.
echo "1 1 0:2 / $folder/small rw - rootfs rootfs rw" | tee -a root/proc/self/all >>root/proc/self/mountinfo
"$agent" --listen-unix "$folder/agent" --root "$folder/root" &
pid=$!
echo "ready $pid"
read -r -t 180 _ || true
