using Vmm.Contracts.Control;
using Vmm.Interop;

namespace Vmm.Daemon.Workers;

/// <summary>What keeps a worker in bounds from outside (control group, limit on file sizes), and what it says of its own bounds.</summary>
/// <param name="process">The worker.</param>
/// <param name="report">Takes a line for the log.</param>
internal sealed class WorkerBounds(ProcessHandle process, Action<string> report)
{
    private const ulong LeastFile = 4096; // a VM without disks in files

    /// <summary>What holds and what does not; null when that is not known.</summary>
    internal ConfinementBody? Confinement { get; set; }

    /// <summary>Its control group; empty when it has none.</summary>
    internal string Group { get; set; } = "";

    /// <summary>Where its group is.</summary>
    internal WorkerCgroups? Cgroups { get; set; }

    /// <summary>Why it has no control group; null when it has.</summary>
    internal string? Ungrouped { get; set; }

    /// <summary>Its time on host CPUs; null when this host cannot limit it.</summary>
    internal CpuLimits? CpuLimits => Cgroups?.CpuLimits(Group);

    /// <summary>How often its quota was used up; null when this host cannot limit it.</summary>
    internal CpuThrottling? CpuThrottling => Cgroups?.CpuThrottling(Group);

    /// <summary>The kernel killed a process of its group for its memory limit.</summary>
    internal bool WasOutOfMemory => Cgroups?.WasOutOfMemory(Group) == true;

    /// <summary>Adds to what confines it that it is in a cgroup (null), or why not.</summary>
    internal void AddGroup(string? problem) => Add("cgroup", problem);

    /// <summary>The VM has huge pages, and they could not be limited.</summary>
    internal void AddHugePageProblem(string problem) => Add("hugetlb", problem);

    /// <summary>Adds that its files are limited in size (null), or reports why not.</summary>
    internal void AddFileLimit(string? problem)
    {
        // Not among what is missing of its confinement: a vmmd without CAP_SYS_RESOURCE cannot do it for users of their own, and those are
        // worth more.
        if (problem is null)
        {
            Add("file-size", null);
        }
        else
        {
            report($"no limit on the size of its files: {problem}");
        }
    }

    /// <inheritdoc cref="IWorker.LimitCpu"/>
    internal string? LimitCpu(CpuLimits limits, bool expected)
    {
        string? problem = Cgroups is null ? "the worker has no control group" : Cgroups.LimitCpu(Group, process.ProcessId, limits);
        if (expected)
        {
            Add("cpu-limits", problem);
        }

        return problem;
    }

    /// <summary>Raises its memory limit for a disk that lies in memory; null, or why that is not possible.</summary>
    internal string? AddMemory(long bytes) => Cgroups?.AddMemory(Group, bytes);

    /// <summary>The most bytes that a file of it can have; null: there is no limit.</summary>
    internal ulong? FileLimit => process.FileSizeLimit;

    /// <summary>Takes its CPU quota away: a thread without quota does not even die.</summary>
    internal void Unthrottle() => Cgroups?.Unthrottle(Group);

    /// <summary>
    /// Its files do not grow beyond the largest of its disks, whoever it obeys. Other files it has none that it could write to; memory was
    /// made before. A disk that is larger and comes later raises the limit.
    /// </summary>
    /// <returns>Why not; null when it is so.</returns>
    internal string? LimitFiles(ulong largest, bool raise)
    {
        ulong bytes = Math.Max(largest, LeastFile);
        try
        {
            if (!raise || bytes > process.FileSizeLimit) // one without a limit keeps none
            {
                process.LimitFileSize(bytes);
            }

            return null;
        }
        catch (KernelException cause)
        {
            return cause.Message;
        }
    }

    private void Add(string name, string? problem)
    {
        ConfinementBody own = Confinement ?? new ConfinementBody([], []);
        Confinement = problem is null
            ? own with { Applied = [.. own.Applied, name] }
            : own with { Missing = [.. own.Missing, $"{name}: {problem}"] };
    }
}
