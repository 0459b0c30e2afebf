using Tmds.Linux;

namespace Vmm.Interop.Libc;

/// <summary>Processes by pidfd, and what this process gives up for good. Answers: 0 or a descriptor, or -errno.</summary>
internal static unsafe class ProcessCalls
{
    // P_PIDFD and WEXITED of waitid(2), PR_SET_DUMPABLE of prctl(2), RLIMIT_FSIZE, RLIMIT_CORE
    private const int PidFdType = 3, WaitExited = 4, SetDumpable = 4, FileSizeLimit = 1, CoreLimit = 4;

    internal static int Open(int processId) => (int)Answer.Of(LibC.syscall(SyscallNumber.SYS_pidfd_open, processId, 0));

    internal static int Signal(FileDescriptorHandle process, int signal)
    {
        using DescriptorLease fd = new(process);
        return (int)Answer.Of(LibC.syscall(SyscallNumber.SYS_pidfd_send_signal, fd.Number, signal, (void*)null, 0));
    }

    /// <summary>To every process of a group.</summary>
    internal static int SignalGroup(int group, int signal) => Answer.Of(LibC.kill(-group, signal));

    /// <summary>
    /// Waits for the end of a process: 1 and how it ended (a CLD_ code and its status) when it was our child, which is reaped; 1 and code 0
    /// when it was somebody else's; 0 when the time (-1: none) is over first.
    /// </summary>
    internal static int Wait(FileDescriptorHandle process, int timeoutMilliseconds, out int code, out int status)
    {
        (code, status) = (0, 0);
        using DescriptorLease fd = new(process);
        Span<PollEntry> ended = [new PollEntry(process, read: true)];
        int ready = PollCalls.Wait(ended, timeoutMilliseconds < 0 ? -1 : timeoutMilliseconds * 1000L);
        if (ready <= 0)
        {
            return ready;
        }

        // siginfo_t: signal, errno, code, padding; then pid, uid, status.
        int* information = stackalloc int[32];
        int answer = (int)Answer.Of(LibC.syscall(SyscallNumber.SYS_waitid, PidFdType, fd.Number, information, WaitExited, (void*)null));
        if (answer < 0)
        {
            return answer == -Errno.ECHILD ? 1 : answer;
        }

        (code, status) = (information[2], information[6]);
        return 1;
    }

    /// <summary>RLIMIT_FSIZE of a process; without <paramref name="hard"/> it could be raised again.</summary>
    internal static int LimitFileSize(int processId, ulong bytes, bool hard)
    {
        ulong* limit = stackalloc ulong[2] { bytes, hard ? bytes : ulong.MaxValue };
        return (int)Answer.Of(LibC.syscall(SyscallNumber.SYS_prlimit64, processId, FileSizeLimit, limit, (void*)null));
    }

    internal static int ReadFileSizeLimit(int processId, out ulong bytes)
    {
        ulong* limit = stackalloc ulong[2];
        int answer = (int)Answer.Of(LibC.syscall(SyscallNumber.SYS_prlimit64, processId, FileSizeLimit, (void*)null, limit));
        bytes = limit[0];
        return answer;
    }

    /// <summary>Guest memory must not land in a core file, nor be read through ptrace by another process of this user.</summary>
    internal static int Harden()
    {
        ulong* none = stackalloc ulong[2] { 0, 0 };
        int answer = (int)Answer.Of(LibC.syscall(SyscallNumber.SYS_prlimit64, 0, CoreLimit, none, (void*)null));
        return answer < 0 ? answer : NotDumpable();
    }

    /// <summary>
    /// For good: every thread becomes this user and group (glibc tells them all), with no other groups and no capabilities.
    /// </summary>
    internal static int Become(uint user)
    {
        int answer = Answer.Of(LibC.setgroups(0, null));
        answer = answer < 0 ? answer : Answer.Of(LibC.setresgid(user, user, user));
        answer = answer < 0 ? answer : Answer.Of(LibC.setresuid(user, user, user));
        return answer < 0 ? answer : NotDumpable(); // the kernel resets it at a change of user
    }

    /// <summary>
    /// Takes the file system away from all threads of a process that was spawned isolated: its root becomes an empty read-only tmpfs.
    /// pivot_root(2) moves the root and working directory of every thread in the mount namespace, so the caller need not be the only one.
    /// Files that are open stay open.
    /// </summary>
    internal static int EmptyRoot()
    {
        fixed (byte* none = "none\0"u8, proc = "/proc\0"u8, tmpfs = "tmpfs\0"u8, size = "size=4k,nr_inodes=1,mode=555\0"u8, here = ".\0"u8,
            root = "/\0"u8)
        {
            uint locked = (uint)(LibC.MS_NOSUID | LibC.MS_NODEV | LibC.MS_NOEXEC);
            // The kernel wants the new root on a directory that exists; /proc does wherever .NET runs.
            int answer = Answer.Of(LibC.mount(none, proc, tmpfs, locked, size));
            // Both at once: the old root lands on top of the new one, from where it is taken off.
            answer = answer < 0 ? answer : Answer.Of(LibC.chdir(proc));
            answer = answer < 0 ? answer : (int)Answer.Of(LibC.syscall(SyscallNumber.SYS_pivot_root, here, here));
            answer = answer < 0 ? answer : Answer.Of(LibC.umount2(here, LibC.MNT_DETACH));
            answer = answer < 0 ? answer : Answer.Of(LibC.chdir(root));
            return answer < 0 ? answer : Answer.Of(LibC.mount(null, root, null, locked | (uint)(LibC.MS_REMOUNT | LibC.MS_RDONLY), null));
        }
    }

    internal static void Exit(int code) => LibC.syscall(SyscallNumber.SYS_exit_group, code);

    /// <summary>It is reset by a change of user.</summary>
    private static int NotDumpable() => (int)Answer.Of(LibC.syscall(SyscallNumber.SYS_prctl, SetDumpable, 0, 0, 0, 0));
}
