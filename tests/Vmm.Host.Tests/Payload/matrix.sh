#!/bin/bash
# Runs in the test host: boots every guest of the matrix and leaves a folder with console, exit code and NUMA maps for each.
# Cases, one a line in cases.txt: name kernel-file initrd cpus vnodes memory [spec file, instead of the three before it]
set -u
here=/payload/matrix
vmmctl=/payload/vmmctl/vmmctl
mkdir -p /collect
disks=$(mktemp -d)
uname -r > /collect/host-kernel
while read -r name kernel initrd cpus vnodes memory spec; do
    [ -n "$name" ] || continue
    shape=(--cpus "$cpus" --numa "$vnodes" --memory "$memory")
    [ -z "$spec" ] || shape=(-f "$here/$spec")
    out=/collect/$name
    mkdir -p "$out"
    # QEMU's emulation crashes nested guests now and then (and its own kernel too): a guest gets three attempts, and the count is kept.
    for attempt in 1 2 3; do
        truncate -s 32M "$disks/$name.raw"
        start=$(date +%s%N)
        timeout -k 5 200 "$vmmctl" run "${shape[@]}" --kernel "$here/$kernel" --initrd "$here/$initrd" \
            --disk "$disks/$name.raw" --cmdline "console=ttyS0 quiet panic=-1 hold" < /dev/null > "$out/console" 2> "$out/stderr" &
        job=$!
        for _ in $(seq 1 1500); do
            if grep -q 'GUEST ready' "$out/console" 2>/dev/null; then
                pid=$(pgrep -P "$job" -x vmm-run | head -1)
                cat "/proc/${pid:-$job}/numa_maps" > "$out/numa_maps" 2>/dev/null
                break
            fi
            kill -0 "$job" 2>/dev/null || break
            sleep 0.2
        done
        wait "$job"
        echo $? > "$out/exit-code"
        echo $((($(date +%s%N) - start) / 1000000)) > "$out/milliseconds"
        echo "$attempt" > "$out/attempts"
        [ "$(cat "$out/exit-code")" = 0 ] && grep -q 'GUEST done' "$out/console" && break
        cp "$out/console" "$out/console.failed$attempt"
        cp "$out/stderr" "$out/stderr.failed$attempt"
    done
    rm -f "$disks/$name.raw"
    echo "matrix: $name ended with $(cat "$out/exit-code") at attempt $(cat "$out/attempts") after $(cat "$out/milliseconds") ms"
done < "$here/cases.txt"
