using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>How a process ended.</summary>
/// <param name="Known">False when it was no child of this process: the kernel tells only parents.</param>
/// <param name="Signal">The signal that killed it; 0 when it exited by itself.</param>
/// <param name="ExitCode">Its exit code.</param>
public readonly record struct ProcessEnd(bool Known, int Signal, int ExitCode);

/// <summary>A folder of the host that a process is to see at another place, in mounts of its own (mount_namespaces(7)).</summary>
/// <param name="Path">The folder. Where the process has the caller's user namespace it is looked up by the caller, and may be a path of
/// proc(5) to what it holds.</param>
/// <param name="At">An existing folder over which it is mounted. What is mounted under the folder is not seen there.</param>
/// <param name="ReadOnly">Nothing in it can be changed.</param>
/// <param name="OwnUser">The process gets a user namespace of its own, whose root is the caller: without CAP_SYS_ADMIN it needs
/// one.</param>
public sealed record SpawnFolder(string Path, string At, bool ReadOnly, bool OwnUser);

/// <summary>A process by pidfd (pidfd_open(2)): signals and waits cannot hit another process that got the same number.</summary>
public sealed class ProcessHandle : IDisposable
{
    private const int CldExited = 1, SigKill = 9;
    private const uint Isolated = 1, Folder = 2, FolderReadOnly = 4, FolderOwnUser = 8; // VMM_SPAWN_* of native-shim/process.h

    // Bit 24 of the effective capabilities, capabilities(7).
    private static bool HasResourceCapability => ReadCapabilities() is { } bits && (bits & (1ul << 24)) != 0;

    private readonly FileDescriptorHandle _pidfd;

    private ProcessHandle(FileDescriptorHandle pidfd, int processId)
    {
        _pidfd = pidfd;
        ProcessId = processId;
    }

    /// <summary>Its number.</summary>
    public int ProcessId { get; }

    /// <summary>Readable once the process has ended.</summary>
    public FileDescriptorHandle Descriptor => _pidfd;

    /// <summary>
    /// Starts a program in a session of its own, so that it outlives this process. It gets the descriptors as 3, 4, …, a standard error,
    /// /dev/null as standard input and output, and nothing else; it gains no privileges by exec (no_new_privs). <paramref name="isolated"/>
    /// gives it mount, network, IPC and UTS namespaces of its own (namespaces(7)), the mounts being those of this process; needs
    /// CAP_SYS_ADMIN. Its standard error is
    /// <paramref name="errors"/>, else that of this process; SIGPIPE does nothing to it. <paramref name="folder"/>: what it sees elsewhere.
    /// </summary>
    /// <exception cref="KernelException">fork or exec failed, or EPERM for the namespaces.</exception>
    public static ProcessHandle Spawn(
        string program, ReadOnlySpan<string> arguments, IReadOnlyDictionary<string, string> environment,
        ReadOnlySpan<FileDescriptorHandle> descriptors, bool isolated = false,
        FileDescriptorHandle? errors = null, SpawnFolder? folder = null)
    {
        string?[] argv = [program, .. arguments, null];
        string?[] envp = new string?[environment.Count + 1];
        int at = 0;
        foreach ((string name, string value) in environment)
        {
            envp[at++] = $"{name}={value}";
        }

        int[] numbers = new int[descriptors.Length];
        for (int i = 0; i < numbers.Length; i++)
        {
            numbers[i] = descriptors[i].Number;
        }

        uint flags = (isolated ? Isolated : 0)
            | (folder is null ? 0 : Folder | (folder.ReadOnly ? FolderReadOnly : 0) | (folder.OwnUser ? FolderOwnUser : 0));
        nint pidfd = Native.Spawn(
            program, argv, envp, numbers, numbers.Length, errors?.Number ?? -1, flags, folder?.Path, folder?.At, out int pid,
            out int errno);
        GC.KeepAlive(errors);
        foreach (FileDescriptorHandle descriptor in descriptors)
        {
            GC.KeepAlive(descriptor);
        }

        return pidfd < 0 ? throw new KernelException($"start {program}", errno) : new ProcessHandle(new FileDescriptorHandle(pidfd), pid);
    }

    /// <summary>A process that runs already. The caller makes sure afterwards that the number was still its own.</summary>
    /// <exception cref="KernelException">ESRCH: it is gone.</exception>
    public static ProcessHandle Open(int processId)
    {
        int pidfd = ProcessCalls.Open(processId);
        return pidfd < 0
            ? throw new KernelException($"pidfd_open {processId}", -pidfd)
            : new ProcessHandle(new FileDescriptorHandle(pidfd), processId);
    }

    /// <summary>SIGKILL; a process that is gone already is fine.</summary>
    /// <exception cref="KernelException">Not permitted.</exception>
    public void Kill() => Signal(SigKill);

    /// <summary>Sends a signal; a process that is gone already is fine.</summary>
    /// <exception cref="KernelException">Not permitted.</exception>
    public void Signal(int signal)
    {
        int answer = ProcessCalls.Signal(_pidfd, signal);
        if (answer < 0 && answer != -Errno.ESRCH)
        {
            throw new KernelException($"kill {ProcessId}", -answer);
        }
    }

    /// <summary>SIGKILL to it and to those that it started, unless they left its group. Before it was waited for: its number is its own
    /// until then.</summary>
    /// <exception cref="KernelException">Not permitted.</exception>
    public void KillGroup()
    {
        int answer = ProcessCalls.SignalGroup(ProcessId, SigKill);
        if (answer < 0 && answer != -Errno.ESRCH)
        {
            throw new KernelException($"kill group {ProcessId}", -answer);
        }
    }

    /// <summary>
    /// Limits the size that the process can give to files (setrlimit(2), RLIMIT_FSIZE): a write beyond it ends it with SIGXFSZ. With
    /// CAP_SYS_RESOURCE the process cannot raise it again, and any process may be limited; without, only one of the same user.
    /// </summary>
    /// <exception cref="KernelException">EPERM: it has another user, and this process no CAP_SYS_RESOURCE.</exception>
    public void LimitFileSize(ulong bytes) =>
        KernelException.ThrowIfError(ProcessCalls.LimitFileSize(ProcessId, bytes, hard: HasResourceCapability),
            $"prlimit of process {ProcessId} (CAP_SYS_RESOURCE)");

    /// <summary>The limit of <see cref="LimitFileSize"/>, bytes; null when there is none, or this process could not have set one.</summary>
    public ulong? FileSizeLimit =>
        ProcessCalls.ReadFileSizeLimit(ProcessId, out ulong bytes) == 0 && bytes != ulong.MaxValue ? bytes : null;

    /// <summary>Waits at most that long (-1: no limit) and reaps a child. Null when it still runs.</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public ProcessEnd? Wait(int timeoutMilliseconds)
    {
        if (KernelException.ThrowIfError(
            ProcessCalls.Wait(_pidfd, timeoutMilliseconds, out int code, out int status), $"wait for {ProcessId}") == 0)
        {
            return null;
        }

        return code == 0 ? default(ProcessEnd) : code == CldExited ? new ProcessEnd(true, 0, status) : new ProcessEnd(true, status, 0);
    }

    /// <inheritdoc/>
    public void Dispose() => _pidfd.Dispose();

    /// <summary>No core files, no ptrace by others of the same user (prctl(2), setrlimit(2)).</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public static void HardenSelf() => KernelException.ThrowIfError(ProcessCalls.Harden(), "prctl");

    /// <summary>
    /// Ends this process now: nothing is closed, flushed or waited for, and no code of a library runs any more (_exit(2)).
    /// </summary>
    public static void ExitNow(int code) => ProcessCalls.Exit(code);

    /// <summary>For good: this process becomes that user and group, with no other groups and no capabilities. Needs root.</summary>
    /// <exception cref="KernelException">The kernel refused; the process is not to go on.</exception>
    public static void BecomeUser(uint user) => KernelException.ThrowIfError(ProcessCalls.Become(user), $"become user {user}");

    /// <summary>
    /// For good: this process, which was spawned isolated, has an empty read-only root on all its threads. What is open stays open. Needs
    /// root.
    /// </summary>
    /// <exception cref="KernelException">The kernel refused (EINVAL: the root is the initial RAM file system).</exception>
    public static void EmptyRoot() => KernelException.ThrowIfError(ProcessCalls.EmptyRoot(), "empty root");

    private static ulong? ReadCapabilities()
    {
        foreach (string line in File.ReadLines("/proc/self/status"))
        {
            if (line.StartsWith("CapEff:", StringComparison.Ordinal))
            {
                return ulong.Parse(
                    line.AsSpan("CapEff:".Length).Trim(),
                    System.Globalization.NumberStyles.HexNumber,
                    System.Globalization.CultureInfo.InvariantCulture);
            }
        }

        return null;
    }
}
