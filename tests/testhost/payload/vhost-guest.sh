#!/bin/sh
# Main program of the guest of tests/testhost/vhost: takes a file from the host, says its checksum, sends it back.
ip link set eth0 up
ip addr add 192.0.2.2/24 dev eth0
ping -c 5 -W 5 192.0.2.1 | grep -q ' 0% packet loss' && echo "GUEST ping ok" || echo "GUEST ping failed"
echo "GUEST listens"
nc -l -p 5000 >/tmp/in
echo "GUEST got $(wc -c </tmp/in) $(md5sum </tmp/in | cut -d' ' -f1)"
for _ in $(seq 50); do nc 192.0.2.1 5001 </tmp/in && break; sleep 0.2; done
echo "GUEST sent"
