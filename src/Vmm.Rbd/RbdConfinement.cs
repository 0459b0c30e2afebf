using Vmm.Interop;

namespace Vmm.Rbd;

/// <summary>
/// What this process gives up before it loads a library of Ceph's: its user, core files, and the system calls that only an intruder makes.
/// It keeps the network and what everybody may read: librados connects to hosts that the cluster names, reads the host's names and loads
/// parts of itself late, so that neither an empty root nor a list of allowed calls is possible.
/// </summary>
internal static class RbdConfinement
{
    private const ulong CloneThread = 0x1_0000;

    /// <summary>Whoever makes one ends the process.</summary>
    private static readonly string[] Deadly =
    [
        "execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp",
        "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "open_tree", "move_mount", "fsopen", "fsmount", "mount_setattr",
        "open_by_handle_at", "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "init_module", "finit_module",
        "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff", "acct", "quotactl", "iopl", "ioperm", "modify_ldt",
        "settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "sethostname", "setdomainname", "syslog", "vhangup",
        "fanotify_init", "lookup_dcookie", "migrate_pages", "io_uring_setup", "io_uring_enter", "io_uring_register",
        "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid", "capset",
    ];

    /// <summary>Fails: nothing here needs it.</summary>
    private static readonly string[] Refused =
        ["kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal", "pidfd_open", "process_mrelease"];

    /// <summary>Address families that are neither the network nor names: AX.25, packet, ALG, vsock, XDP, Bluetooth, key.</summary>
    private static readonly uint[] NoSockets = [3, 15, 17, 31, 38, 40, 44];

    /// <summary>For good, on all threads.</summary>
    /// <param name="user">The user to become; null: stay who it is.</param>
    /// <exception cref="KernelException">The kernel refused: the process is not to go on.</exception>
    internal static void Close(uint? user)
    {
        ProcessHandle.HardenSelf();
        if (user is { } number)
        {
            ProcessHandle.BecomeUser(number);
        }

        try
        {
            using SeccompFilterBuilder builder = new(SyscallAction.Allow);
            Add(builder);
            using SeccompFilter filter = builder.Build();
            filter.LoadOnProcess(logged: false);
        }
        catch (KernelException cause) when (cause.Errno == Errno.ELIBACC)
        {
            Console.Error.WriteLine($"vmm-rbd {Environment.ProcessId}: not confined by seccomp: {cause.Message}");
        }
    }

    private static void Add(SeccompFilterBuilder builder)
    {
        foreach (string call in Deadly)
        {
            builder.TryAdd(call, SyscallAction.KillProcess);
        }

        foreach (string call in Refused)
        {
            builder.TryAdd(call, SyscallAction.Refuse);
        }

        foreach (uint family in NoSockets)
        {
            builder.TryAdd("socket", SyscallAction.Refuse, SyscallTest.Int(0, family));
        }

        // Threads, no processes; glibc tries clone3 first, whose flags no filter sees.
        builder.TryAdd("clone", SyscallAction.KillProcess, new SyscallTest(0, CloneThread, 0));
        builder.TryAdd("clone3", SyscallAction.Missing);
    }
}
