#!/bin/sh
# Main program of a guest that waits for its power button.
echo "GUEST waits"
dd if=/dev/input/event0 bs=24 count=1 2>/dev/null >/dev/null
echo "GUEST power button"
