#!/bin/sh
# Main program of the guest of tests/testhost/share.
mkdir -p /m /r
mount -t virtiofs data /m || { echo "GUEST cannot mount data"; exit; }
mount -t virtiofs www /r || { echo "GUEST cannot mount www"; exit; }
echo "GUEST found $(md5sum </r/in | cut -d' ' -f1)"
dd if=/dev/urandom of=/m/out bs=64k count=128 2>/dev/null
sync
echo "GUEST wrote $(md5sum </m/out | cut -d' ' -f1)"
mkdir /m/folder
echo text >/m/folder/name
chmod 640 /m/folder/name
mv /m/folder/name /m/folder/moved
ln -s moved /m/link
echo "GUEST read-only: $(touch /r/new 2>&1)"
echo "GUEST ready"
while dd if=/r/in of=/dev/null bs=64k iflag=direct 2>/tmp/error || dd if=/r/in of=/dev/null bs=64k 2>/tmp/error; do
    echo 3 >/proc/sys/vm/drop_caches
    ls /m >/dev/null 2>/tmp/error || break
done
echo "GUEST lost: $(tail -1 /tmp/error)"
umount /r || echo "GUEST cannot umount"
# A mount that is made while nobody serves the folder says nothing of that, and is of no use.
for _ in $(seq 100); do
    mount -t virtiofs www /r 2>/dev/null
    [ -e /r/in ] && break
    umount /r
    sleep 0.5
done
echo "GUEST again $(md5sum </r/in | cut -d' ' -f1)"
umount /r
