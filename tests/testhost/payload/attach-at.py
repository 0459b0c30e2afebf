#!/usr/bin/env python3
"""Plugs a disk into a VM of vmmd, so long after a line came on the VM's console: attach-at.py CONSOLE TEXT SECONDS VM PATH SERIAL.

A program of its own that waits with its connection open: a command that is started at that moment comes a good part of a second later on an emulated machine."""
import http.client
import json
import socket
import sys
import time

console, text, seconds, vm, path, serial = sys.argv[1:]
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("/run/vmm/vmmd.sock")


def log():
    with open(console, errors="replace") as file:
        return file.read()


def last():
    return (log().splitlines() or [""])[-1].strip()[:90]


end = time.monotonic() + 100
while text not in log():
    if time.monotonic() > end:
        sys.exit(f"'{text}' did not come")
    time.sleep(0.01)
time.sleep(float(seconds))
before = last()
begin = time.monotonic()
connection.request("POST", f"/api/v1/vms/{vm}/disks?persistent=false", json.dumps({"path": path, "serial": serial}), {"Content-Type": "application/json"})
answer = connection.getresponse()
body = answer.read().decode()
print(f"  {serial}: asked behind '{before}', answered after {time.monotonic() - begin:.3f} s behind '{last()}'", flush=True)
if answer.status != 201:
    sys.exit(f"{answer.status}: {body}")
