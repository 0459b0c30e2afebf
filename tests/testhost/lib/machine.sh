# shellcheck shell=bash
# What one test host is made of: its job disk and QEMU's arguments. Uses the options parsed by run.

# make_job_disk WORK COMMAND...: WORK/job.img, an ext4 disk with the payload folders, the command and the host's init.
make_job_disk() {
    local work=$1 tree=$1/job dir size
    shift
    mkdir -p "$tree/.job"
    install -m 755 "$TESTHOST_DIR/lib/host-init" "$tree/.job/init"
    if [[ $# == 1 ]]; then echo "$1"; else printf '%q ' "$@"; fi >"$tree/.job/command"
    # shellcheck disable=SC2154 # options of run
    cat >"$tree/.job/settings" <<END
TESTHOST_SHELL=$shell
TESTHOST_SYSTEMD=$systemd
TESTHOST_COLLECT=$([[ -n $collect ]] && echo 1 || echo 0)
TESTHOST_ADDRESS=${address:-}
END
    # shellcheck disable=SC2154
    for dir in "${payloads[@]}"; do
        [[ ! -e $tree/$(basename "$dir") ]] || die "two payload folders are called $(basename "$dir")"
        cp -a --reflink=auto "$dir" "$tree/"
    done
    size=$(($(du -sm --apparent-size "$tree" | cut -f1) * 5 / 4 + 64))
    mke2fs -q -t ext4 -O ^has_journal -m 0 -E root_owner=0:0 -d "$tree" "$work/job.img" "${size}M" >/dev/null
    rm -rf "$tree"
}

# machine_arguments WORK IMAGE NODES MEMORY SHELL: fills the array `machine`.
# No XSAVE: QEMU does not intercept XSETBV for a nested hypervisor, so KVM would tell its guests wrong state sizes (CPUID 0xD). So no AVX either, which QEMU would leave there:
# Linux since 7.0 uses it without a look at XSAVE (polyval_mul_pclmul_avx), and panics.
# No five-level paging: a nested walk goes through every level of the one table for every level of the other.
# No timer check: it wants ten ticks in ten milliseconds by the TSC, which an emulator without processor time does not give; the kernel panics then.
# Warnings are on the console: they come before the panic that is printed. A task that hangs for three minutes is a panic, too: it never came back so far,
# and whoever waits for this host learns of it, with the stack, instead of waiting for the deadline.
# One CPU and an equal share of memory per node; an IOMMU with interrupt remapping; an NVMe drive with two VFs.
machine_arguments() {
    local work=$1 image=$2 nodes=$3 share=$((${4%G} * 1024 / $3)) shell=$5 node other name
    machine=(
        -M "q35,kernel-irqchip=split" -accel "tcg,thread=multi" -cpu "max,+svm,+npt,-xsave,-avx,-avx2,-f16c,-fma,-vaes,-vpclmulqdq,-la57" -smp "$nodes" -m "$((share * nodes))M"
        -device "intel-iommu,intremap=on,caching-mode=on"
        -display none -vga none -no-reboot -nodefaults -net none
        -kernel "$image/vmlinuz" -initrd "$image/initrd.img"
        -append "console=ttyS0 no_timer_check panic=-1 oops=panic hung_task_panic=1 sysctl.kernel.hung_task_timeout_secs=180 intel_iommu=on iommu=pt mitigations=off loglevel=5"
        -drive "file=$image/host.img,if=virtio,format=raw,snapshot=on"
        -drive "file=$work/job.img,if=virtio,format=raw,cache=unsafe"
        -device "pcie-root-port,id=rp,slot=1" -device "nvme-subsys,id=sub0"
        -device "nvme,serial=vmm,subsys=sub0,bus=rp,sriov_max_vfs=2,max_ioqpairs=6,msix_qsize=7,sriov_vq_flexible=4,sriov_vi_flexible=4"
        -drive "file=$work/nvme.img,if=none,id=nv,format=raw" -device "nvme-ns,drive=nv,nsid=1,shared=on"
        -device edu -device "virtio-serial-pci,id=ports"
    )
    for ((node = 0; node < nodes; node++)); do
        machine+=(-object "memory-backend-ram,id=m$node,size=${share}M"
            -numa "node,memdev=m$node,cpus=$node,nodeid=$node")
    done
    for ((node = 0; node < nodes; node++)); do
        for ((other = node + 1; other < nodes; other++)); do machine+=(-numa "dist,src=$node,dst=$other,val=21"); done
    done
    # shellcheck disable=SC2154 # an option of run
    if [[ ${#link[@]} -gt 0 ]]; then
        machine+=(-netdev "dgram,id=link,local.type=unix,local.path=${link[0]}/${link[1]},remote.type=unix,remote.path=${link[0]}/${link[2]}"
            -device "virtio-net-pci,netdev=link,mac=52:54:00:00:00:0${link[1]}")
    fi
    for name in stdout stderr result collect; do
        machine+=(-chardev "file,id=$name,path=$work/$name" -device "virtserialport,bus=ports.0,chardev=$name,name=$name")
    done
    if [[ $shell == 1 ]]; then
        machine+=(-serial "mon:stdio")
    else
        machine+=(-serial "file:$work/console.log")
    fi
}
