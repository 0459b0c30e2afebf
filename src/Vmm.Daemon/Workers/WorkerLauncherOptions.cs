namespace Vmm.Daemon.Workers;

/// <summary>How workers are started.</summary>
public sealed record WorkerLauncherOptions
{
    /// <summary>
    /// Folder of control sockets and end records: on one file system that survives the daemon, e.g. /run/vmm/workers. Made with mode 0700.
    /// </summary>
    public required string Directory { get; init; }

    /// <summary>The vmm-worker program; beside this program unless told otherwise.</summary>
    public string Program { get; init; } = Path.Combine(AppContext.BaseDirectory, "vmm-worker");

    /// <summary>Workers kept ready; 0 starts each when it is needed.</summary>
    public int PoolSize { get; init; }

    /// <summary>Every worker becomes a user of its own, from this uid up; null leaves them the daemon's user. Needs root.</summary>
    public uint? FirstUserId { get; init; }

    /// <summary>How many uids there are.</summary>
    public int UserIdCount { get; init; } = 4096;

    /// <summary>Workers get namespaces of their own and lose the file system once their VM is built. Needs root.</summary>
    public bool Isolated { get; init; }

    /// <summary>Workers filter their system calls once their VM is built.</summary>
    public bool SystemCallFilters { get; init; } = true;

    /// <summary>Where cgroups are mounted; workers get groups with limits there. Null: no groups.</summary>
    public string? CgroupRoot { get; init; }

    /// <summary>Where files of specs may lie, and how they are opened.</summary>
    internal DiskAccess Disks { get; init; } = DiskAccess.None;

    /// <summary>Do not run a VM whose worker is not fully confined.</summary>
    public bool RequireConfinement { get; init; }

    /// <summary>How long a VM may take to be built and started.</summary>
    public TimeSpan LongestStart { get; init; } = TimeSpan.FromMinutes(1);

    /// <summary>
    /// Takes what workers write to their standard error, line by line, bounded: process, VM (empty: none yet), line. Null: to the daemon's
    /// own.
    /// </summary>
    public Action<int, string, string>? WorkerSaid { get; init; }

    /// <summary>Passes a line on to <see cref="WorkerSaid"/>.</summary>
    internal void Report(int processId, string vmId, string line)
    {
        if (WorkerSaid is { } say)
        {
            say(processId, vmId, line);
        }
        else
        {
            Console.Error.WriteLine($"worker {processId} {vmId}: {line}");
        }
    }

    /// <summary>How long a stopped worker may take before it is killed.</summary>
    public TimeSpan StopTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>How long a worker may take to answer.</summary>
    public TimeSpan AnswerTimeout { get; init; } = TimeSpan.FromSeconds(30);
}
