using Vmm.Interop;
using Vmm.Interop.Kvm;
using Vmm.Machine.Run;

namespace Vmm.Worker.Confinement;

/// <summary>
/// What each kind of thread may ask of the kernel. Everything else fails with EPERM; what only an intruder asks for ends the process. Sets
/// nest: a filter only ever narrows, and threads of vCPUs and of I/O start under the set of the whole process. What only some VMs need,
/// their parts declare (<see cref="SyscallNeeds"/>).
/// </summary>
internal static class SyscallSets
{
    private const ulong ProtExec = 4; // sys/mman.h

    /// <summary>
    /// What the .NET runtime does on whichever thread comes along: allocation and collection (mappings, membarrier, madvise), suspending
    /// threads (signals to threads of its own process), starting its helpers (threads, never processes; it sets their affinity), waiting,
    /// and reading clocks.
    /// </summary>
    private static readonly string[] Runtime =
    [
        "futex", "read", "write", "close", "munmap", "madvise", "mremap", "brk", "membarrier",
        "rt_sigprocmask", "rt_sigreturn", "rt_sigaction", "sigaltstack", "gettid", "getpid", "set_robust_list", "rseq",
        "sched_yield", "sched_getaffinity", "sched_setaffinity", "sched_getscheduler", "sched_getparam", "sched_get_priority_min",
        "sched_get_priority_max", "getcpu", "clock_gettime", "clock_nanosleep", "nanosleep", "restart_syscall",
        "exit", "exit_group", "poll", "ppoll", "pipe2", "eventfd2", "getrandom", "getrusage", "sysinfo",
    ];

    /// <summary>
    /// A device's own threads: their rings, in which they also wait for timers (what rings do, native-shim/uring.c limits), and a look at
    /// their descriptors.
    /// </summary>
    private static readonly string[] Io = ["io_uring_enter", "lseek", "fstat", "fcntl"];

    /// <summary>The control channel, consoles, pinning.</summary>
    private static readonly string[] Control =
    [
        "listen", "accept", "getsockname", "getpeername", "memfd_create", "ftruncate", "dup",
        "statx", "fstatfs", "pread64", "mbind", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "flock",
    ];

    /// <summary>
    /// No path of ours, nor of the runtime, leads here after the VM was built: whoever calls is an intruder, and the VM ends.
    /// </summary>
    private static readonly string[] Deadly =
    [
        "execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd",
        "pidfd_open", "kcmp",
        "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "open_tree", "move_mount", "fsopen", "fsmount", "mount_setattr",
        "open_by_handle_at",
        "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "setuid", "setgid", "setreuid", "setregid",
        "setresuid", "setresgid",
        "setgroups", "setfsuid", "setfsgid", "capset", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load",
        "reboot",
        "swapon", "swapoff", "acct", "quotactl", "iopl", "ioperm", "modify_ldt", "personality", "settimeofday", "clock_settime", "adjtimex",
        "clock_adjtime",
        "sethostname", "setdomainname", "syslog", "vhangup", "fanotify_init", "lookup_dcookie", "migrate_pages",
        // a ring without restrictions opens files and makes sockets, which no filter sees; ours were made before
        "io_uring_setup", "io_uring_register",
    ];

    /// <summary>
    /// What exits make of a vCPU thread: entering the guest, emulation assists, doorbells and interrupts that a driver sets up.
    /// </summary>
    private static readonly KvmRequest[] VcpuRequests =
    [
        KvmRequest.KVM_RUN, KvmRequest.KVM_GET_REGS, KvmRequest.KVM_SET_REGS, KvmRequest.KVM_GET_SREGS, KvmRequest.KVM_SET_SREGS,
        KvmRequest.KVM_GET_VCPU_EVENTS,
        KvmRequest.KVM_SET_VCPU_EVENTS, KvmRequest.KVM_GET_FPU, KvmRequest.KVM_SET_FPU, KvmRequest.KVM_GET_XSAVE, KvmRequest.KVM_SET_XSAVE,
        KvmRequest.KVM_GET_MSRS,
        KvmRequest.KVM_SET_MSRS, KvmRequest.KVM_TRANSLATE, KvmRequest.KVM_IRQFD, KvmRequest.KVM_IOEVENTFD, KvmRequest.KVM_SET_GSI_ROUTING,
        KvmRequest.KVM_IRQ_LINE,
        KvmRequest.KVM_SIGNAL_MSI,
    ];

    /// <summary>
    /// What else happens to a VM that is built: its memory map, dirty log and state. Neither VMs nor vCPUs are made any more.
    /// </summary>
    private static readonly KvmRequest[] ControlRequests =
    [
        KvmRequest.KVM_SET_USER_MEMORY_REGION, // the log of a slot begins and ends by it
        KvmRequest.KVM_CHECK_EXTENSION, KvmRequest.KVM_GET_MSR_INDEX_LIST, KvmRequest.KVM_GET_DIRTY_LOG, KvmRequest.KVM_CLEAR_DIRTY_LOG,
        KvmRequest.KVM_RESET_DIRTY_RINGS,
        KvmRequest.KVM_GET_CLOCK, KvmRequest.KVM_SET_CLOCK, KvmRequest.KVM_GET_IRQCHIP, KvmRequest.KVM_SET_IRQCHIP, KvmRequest.KVM_GET_PIT2,
        KvmRequest.KVM_SET_PIT2,
        KvmRequest.KVM_GET_XSAVE2, KvmRequest.KVM_GET_XCRS, KvmRequest.KVM_SET_XCRS, KvmRequest.KVM_GET_DEBUGREGS,
        KvmRequest.KVM_SET_DEBUGREGS, KvmRequest.KVM_GET_LAPIC,
        KvmRequest.KVM_SET_LAPIC, KvmRequest.KVM_GET_MP_STATE, KvmRequest.KVM_SET_MP_STATE, KvmRequest.KVM_GET_CPUID2,
        KvmRequest.KVM_GET_TSC_KHZ, KvmRequest.KVM_SET_TSC_KHZ,
        KvmRequest.KVM_KVMCLOCK_CTRL, KvmRequest.KVM_NMI, KvmRequest.KVM_GET_DEVICE_ATTR, KvmRequest.KVM_SET_DEVICE_ATTR,
    ];

    /// <summary>The filters of a VM with these needs are those of a VM without devices.</summary>
    internal static bool IsUsual(MachineNeeds needs) =>
        (MachineNeeds.Pluggable.Threads + UnixStream.Needs).Covers(needs.Threads) && MachineNeeds.Pluggable.Vcpus.Covers(needs.Vcpus);

    /// <summary>The filter of the whole process, and of threads that are neither vCPU nor I/O.</summary>
    /// <param name="processId">This process.</param>
    /// <param name="needs">What the parts of the VM ask for on any thread, with those that can come later.</param>
    internal static SeccompFilter BuildProcess(int processId, SyscallNeeds needs)
    {
        using SeccompFilterBuilder filter = Start(processId);
        filter.TryAdd("clone3", SyscallAction.Allow); // not by BuildSilent
        Allow(filter, Io);
        Allow(filter, Control);
        // Where pages of its own lie, and moving them; process 0 is the caller. Nothing of the guest's doing leads here: vCPU and I/O
        // threads may not.
        filter.TryAdd("move_pages", SyscallAction.Allow, SyscallTest.Int(0, 0));
        filter.TryAdd("socketpair", SyscallAction.Allow, SyscallTest.Int(0, 1 /* AF_UNIX */)); // consoles
        // threads narrow themselves
        filter.TryAdd("seccomp", SyscallAction.Allow, SyscallTest.Int(0, 1 /* SECCOMP_SET_MODE_FILTER */), SyscallTest.Int(1, 0));
        Allow(filter, VcpuRequests);
        Allow(filter, ControlRequests);
        Allow(filter, UnixStream.Needs); // the control channel
        Allow(filter, needs);
        foreach (string call in Deadly)
        {
            filter.TryAdd(call, SyscallAction.KillProcess); // one that libseccomp does not know yet fails with EPERM
        }

        return filter.Build();
    }

    /// <summary>
    /// What all threads do without, and nobody need hear of. glibc starts threads with clone3, whose flags lie in memory where no filter
    /// sees them; without it, with clone. It tries each time: as part of a filter that logs, that were lines in the audit log of every
    /// host.
    /// </summary>
    internal static SeccompFilter BuildSilent()
    {
        using SeccompFilterBuilder filter = new(SyscallAction.Allow);
        filter.TryAdd("clone3", SyscallAction.Missing);
        return filter.Build();
    }

    /// <summary>The filter of a vCPU thread.</summary>
    /// <param name="processId">This process.</param>
    /// <param name="needs">What registers of the VM's devices make it ask for.</param>
    internal static SeccompFilter BuildVcpu(int processId, SyscallNeeds needs)
    {
        using SeccompFilterBuilder filter = Start(processId);
        filter.TryAdd("clone3", SyscallAction.Missing);
        Allow(filter, VcpuRequests);
        Allow(filter, needs);
        return filter.Build();
    }

    /// <summary>
    /// The filter of the I/O threads of one device. Their io_uring is of the pool, and does what native-shim/uring.c allows it.
    /// </summary>
    /// <param name="processId">This process.</param>
    /// <param name="needs">What that device asks for.</param>
    internal static SeccompFilter BuildIo(int processId, SyscallNeeds needs)
    {
        using SeccompFilterBuilder filter = Start(processId);
        filter.TryAdd("clone3", SyscallAction.Missing);
        Allow(filter, Io);
        Allow(filter, needs);
        return filter.Build();
    }

    private static SeccompFilterBuilder Start(int processId)
    {
        SeccompFilterBuilder filter = new(SyscallAction.Refuse);
        Allow(filter, Runtime);
        // The program is compiled ahead: no memory becomes executable any more.
        filter.TryAdd("mmap", SyscallAction.Allow, new SyscallTest(2, ProtExec, 0));
        filter.TryAdd("mprotect", SyscallAction.Allow, new SyscallTest(2, ProtExec, 0));
        // CLONE_VM, CLONE_SIGHAND, CLONE_THREAD, and neither a namespace nor CLONE_PTRACE, CLONE_UNTRACED: a thread of this process.
        filter.TryAdd("clone", SyscallAction.Allow, new SyscallTest(0, 0x7e83_2900, 0x1_0900));
        filter.TryAdd("tgkill", SyscallAction.Allow, SyscallTest.Int(0, (uint)processId));
        filter.TryAdd("prctl", SyscallAction.Allow, SyscallTest.Int(0, 15 /* PR_SET_NAME */));
        filter.TryAdd("prctl", SyscallAction.Allow, SyscallTest.Int(0, 0x53564d41 /* PR_SET_VMA */));
        filter.TryAdd("sched_setscheduler", SyscallAction.Allow, SyscallTest.Int(1, 0 /* SCHED_OTHER */));
        // Reading its own limits: no process id, no new limit.
        filter.TryAdd("prlimit64", SyscallAction.Allow, SyscallTest.Int(0, 0), new SyscallTest(2, ulong.MaxValue, 0));
        return filter;
    }

    private static void Allow(SeccompFilterBuilder filter, IEnumerable<string> calls)
    {
        foreach (string call in calls)
        {
            if (!filter.TryAdd(call, SyscallAction.Allow))
            {
                throw new InvalidOperationException($"libseccomp knows no system call {call}");
            }
        }
    }

    private static void Allow(SeccompFilterBuilder filter, KvmRequest[] requests)
    {
        foreach (KvmRequest request in requests)
        {
            filter.TryAdd("ioctl", SyscallAction.Allow, SyscallTest.Int(1, (uint)request));
        }
    }

    private static void Allow(SeccompFilterBuilder filter, SyscallNeeds needs)
    {
        Allow(filter, needs.Calls);
        foreach (uint request in needs.Ioctls)
        {
            filter.TryAdd("ioctl", SyscallAction.Allow, SyscallTest.Int(1, request));
        }
    }
}
