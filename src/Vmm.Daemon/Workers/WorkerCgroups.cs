using System.Collections.Concurrent;
using System.Globalization;
using Vmm.Contracts.Control;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>
/// Control groups of workers (cgroups(7)): <c>vmm/UUID</c> below the root of the hierarchy, v2 where its controllers are, otherwise the v1
/// controllers memory and pids. A group limits what a worker that was taken over can eat; a healthy VM stays far below. The controller cpu,
/// where there is one, gives a VM the time on host CPUs that its spec names (<see cref="CpuController"/>).
/// </summary>
internal sealed class WorkerCgroups
{
    /// <summary>
    /// Beyond guest memory: the runtime (about 40 MB resident), page tables of guest memory, KVM's own and the page cache that the worker's
    /// buffered disk I/O is charged with (which the kernel takes back before it kills).
    /// </summary>
    private const long Overhead = 256L << 20;

    /// <summary>One part in 32 of guest memory: page tables of both kinds, dirty bitmaps.</summary>
    private const int OverheadShare = 32;

    /// <summary>Tasks beside those that the spec asks for: the runtime, one or two a device, kernel workers of the rings.</summary>
    private const int MostTasks = 512;

    private static readonly string[] V1Controllers = ["memory", "pids"];

    private readonly List<string> _parents = [];
    private readonly ConcurrentDictionary<string, bool> _own = new(StringComparer.Ordinal);
    private readonly bool _v2;

    /// <summary>The one of <see cref="_parents"/> with the controller cpu; null when there is none.</summary>
    private readonly string? _cpu;
    /// <summary>The one with the controller hugetlb; null when there is none.</summary>
    private readonly string? _huge;
    private readonly string _noCpu = "vmmd has no cgroups to give (it needs root)";

    /// <summary>Looks what is there; makes the groups that hold those of the workers.</summary>
    /// <param name="root">Where cgroups are mounted: /sys/fs/cgroup. Null: do without.</param>
    internal WorkerCgroups(string? root)
    {
        if (root is null)
        {
            Problem = "vmmd has no cgroups to give (it needs root)";
            return;
        }

        try
        {
            string controllers = Path.Combine(root, "cgroup.controllers");
            if (File.Exists(controllers) && File.ReadAllText(controllers).Contains("memory", StringComparison.Ordinal))
            {
                _v2 = true;
                File.WriteAllText(Path.Combine(root, "cgroup.subtree_control"), "+memory +pids");
                string parent = Directory.CreateDirectory(Path.Combine(root, "vmm")).FullName;
                File.WriteAllText(Path.Combine(parent, "cgroup.subtree_control"), "+memory +pids");
                _parents.Add(parent);
                (_cpu, _noCpu) = Add("cpu", root, parent);
                (_huge, _) = Add("hugetlb", root, parent);
                return;
            }

            foreach (string controller in V1Controllers)
            {
                if (Directory.Exists(Path.Combine(root, controller)))
                {
                    _parents.Add(Directory.CreateDirectory(Path.Combine(root, controller, "vmm")).FullName);
                }
            }

            Problem = _parents.Count == V1Controllers.Length ? null : $"no controllers memory and pids below {root}";
            if (File.Exists(Path.Combine(root, "cpu", "cpu.shares")))
            {
                _cpu = Directory.CreateDirectory(Path.Combine(root, "cpu", "vmm")).FullName;
                _parents.Add(_cpu);
            }

            _noCpu = $"no controller cpu below {root}";
            if (Directory.Exists(Path.Combine(root, "hugetlb")))
            {
                _huge = Directory.CreateDirectory(Path.Combine(root, "hugetlb", "vmm")).FullName;
                _parents.Add(_huge);
            }
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            Problem = cause.Message;
            _noCpu = cause.Message;
        }
    }

    /// <summary>Why there are no groups; null when there are.</summary>
    internal string? Problem { get; }

    /// <summary>
    /// Makes a group and moves a worker in, before it has a VM: moving waits for all CPUs (18 ms were seen with v1), which a VM that comes
    /// through the pool need not. Null, or why that was not possible; then nothing is left.
    /// </summary>
    internal string? Join(string group, int processId)
    {
        if (Problem is not null)
        {
            return Problem;
        }

        _own[group] = true;
        try
        {
            foreach (string parent in _parents)
            {
                string folder = Directory.CreateDirectory(Path.Combine(parent, group)).FullName;
                Limit(folder, "pids.max", MostTasks);
                File.WriteAllText(Path.Combine(folder, "cgroup.procs"), processId.ToString(CultureInfo.InvariantCulture));
            }

            return null;
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            Remove(group);
            return cause.Message;
        }
    }

    /// <summary>Limits a group to what a VM needs. Null, or why that was not possible.</summary>
    internal string? LimitTo(string group, VmSpec spec)
    {
        ulong most = 0;
        foreach (VnodeSpec vnode in spec.EffectiveVnodes)
        {
            most += Math.Max(vnode.Memory, vnode.MaxMemory ?? default);
        }

        // The pages of a disk on a file system in memory are charged to who writes them.
        long limit = (long)(most + (most / OverheadShare)) + Overhead + spec.Disks.Sum(MemoryDisks.BytesOf);
        try
        {
            foreach (string parent in _parents)
            {
                Limit(Path.Combine(parent, group), _v2 ? "memory.max" : "memory.limit_in_bytes", limit);
                Limit(Path.Combine(parent, group), "pids.max", MostTasks + Threads(spec));
                Limit(Path.Combine(parent, group), "memory.swap.max", limit); // v2 counts it apart, and without a limit by default
            }

            return null;
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return cause.Message;
        }
    }

    /// <summary>
    /// Limits the huge pages of a group to those of the VM, none when it has none. Null, or why that was not possible for a VM that has
    /// some.
    /// </summary>
    internal string? LimitHugePages(string group, VmSpec spec)
    {
        try
        {
            return HugetlbController.Write(Path.Combine(_huge ?? "/nonexistent", group), _v2, spec) is { } uncounted
                ? Problem ?? uncounted
                : null;
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return cause.Message;
        }
    }

    /// <summary>Raises the memory limit of a group, for a disk in memory that was plugged in. Null, or why that was not possible.</summary>
    internal string? AddMemory(string group, long bytes)
    {
        try
        {
            foreach (string parent in group.Length > 0 && bytes > 0 ? _parents : [])
            {
                string folder = Path.Combine(parent, group), file = _v2 ? "memory.max" : "memory.limit_in_bytes",
                    path = Path.Combine(folder, file);
                if (File.Exists(path) && long.TryParse(File.ReadAllText(path), CultureInfo.InvariantCulture, out long now)
                    && now < long.MaxValue / 2)
                {
                    Limit(folder, file, now + bytes);
                }
            }

            return null;
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return cause.Message;
        }
    }

    /// <summary>
    /// True when the kernel has killed something of the group because it was out of memory (memory.events, or memory.oom_control of v1).
    /// </summary>
    internal bool WasOutOfMemory(string group)
    {
        foreach (string parent in group.Length > 0 ? _parents : [])
        {
            try
            {
                string file = Path.Combine(parent, group, _v2 ? "memory.events" : "memory.oom_control");
                if (File.Exists(file) && File.ReadLines(file)
                    .Any(line => line.StartsWith("oom_kill ", StringComparison.Ordinal) && !line.EndsWith(" 0", StringComparison.Ordinal)))
                {
                    return true;
                }
            }
            catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
            {
                // The group is gone: nobody knows any more.
            }
        }

        return false;
    }

    // vCPUs, and the queues of disks and network devices that have a thread each.
    private static int Threads(VmSpec spec) =>
        spec.Cpus + spec.Disks.Sum(disk => Math.Clamp(spec.Cpus, 1, disk.Queues)) + spec.Nets.Sum(net => net.Queues);

    /// <summary>
    /// Gives a group time on CPUs. A worker of an earlier daemon that knew nothing of this controller is put in first. Null, or why that
    /// was not possible.
    /// </summary>
    internal string? LimitCpu(string group, int processId, CpuLimits limits)
    {
        if (CpuFolder(group) is not { } folder)
        {
            return _cpu is null ? _noCpu : Problem ?? "the worker has no control group";
        }

        try
        {
            if (!Directory.Exists(folder))
            {
                Directory.CreateDirectory(folder);
                File.WriteAllText(Path.Combine(folder, "cgroup.procs"), processId.ToString(CultureInfo.InvariantCulture));
            }

            CpuController.Write(folder, _v2, limits);
            return null;
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return cause.Message;
        }
    }

    /// <summary>
    /// Takes the quota of a worker away that is to end, or does: what it still does (freeing memory, finishing requests) is not worth
    /// waiting for.
    /// </summary>
    internal void Unthrottle(string group) => OfCpu(group, folder =>
    {
        CpuController.Unthrottle(folder, _v2);
        return folder;
    });

    /// <summary>The limits in force; null when there is no group that could have any.</summary>
    internal CpuLimits? CpuLimits(string group) => OfCpu(group, folder => CpuController.Read(folder, _v2));

    /// <summary>How often its quota was used up; null when there is no group that could have one.</summary>
    internal CpuThrottling? CpuThrottling(string group) => OfCpu(group, CpuController.Throttling);

    /// <summary>The group of ours that a process of an earlier daemon is in; null when it is in none.</summary>
    internal string? Of(int processId)
    {
        try
        {
            // cgroups(7), /proc/PID/cgroup: hierarchy:controllers:path
            foreach (string line in File.ReadLines($"/proc/{processId.ToString(CultureInfo.InvariantCulture)}/cgroup"))
            {
                int at = line.LastIndexOf("/vmm/", StringComparison.Ordinal);
                if (at >= 0 && Guid.TryParse(line.AsSpan(at + 5), out _))
                {
                    return line[(at + 5)..];
                }
            }
        }
        catch (IOException)
        {
            // It is gone.
        }

        return null;
    }

    /// <summary>Removes a group whose worker has ended. One that is not empty yet, or not there, is left.</summary>
    internal void Remove(string group)
    {
        _own.TryRemove(group, out _);
        foreach (string parent in _parents)
        {
            // A process that was just reaped may be counted for a moment longer.
            for (int attempt = 0; group.Length > 0 && attempt < 10 && !TryDelete(Path.Combine(parent, group)); attempt++)
            {
                Thread.Sleep(5);
            }
        }
    }

    /// <summary>Removes the groups that have no worker any more.</summary>
    internal void Sweep(IReadOnlySet<string> alive)
    {
        foreach (string parent in _parents)
        {
            foreach (string group in Directory.Exists(parent) ? Directory.GetDirectories(parent) : [])
            {
                string id = Path.GetFileName(group);
                if (Guid.TryParse(id, out _) && !alive.Contains(id) && !_own.ContainsKey(id))
                {
                    _ = TryDelete(group); // another daemon's group has a process in it, and stays
                }
            }
        }
    }

    /// <summary>
    /// The controller below a v2 root, which may refuse it alone: with threads of real-time priority outside the root group, say.
    /// </summary>
    private static (string? Parent, string Problem) Add(string controller, string root, string parent)
    {
        if (!File.ReadAllText(Path.Combine(root, "cgroup.controllers")).Split([' ', '\n']).Contains(controller, StringComparer.Ordinal))
        {
            return (null, $"no controller {controller} in {root}/cgroup.controllers");
        }

        try
        {
            File.WriteAllText(Path.Combine(root, "cgroup.subtree_control"), "+" + controller);
            File.WriteAllText(Path.Combine(parent, "cgroup.subtree_control"), "+" + controller);
            return (parent, "");
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return (null, cause.Message);
        }
    }

    private string? CpuFolder(string group) => Problem is null && _cpu is not null && group.Length > 0 ? Path.Combine(_cpu, group) : null;

    private T? OfCpu<T>(string group, Func<string, T> question) where T : class
    {
        try
        {
            return CpuFolder(group) is { } folder && Directory.Exists(folder) ? question(folder) : null;
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return null; // it went away meanwhile
        }
    }

    private static bool TryDelete(string group)
    {
        try
        {
            if (Directory.Exists(group))
            {
                Directory.Delete(group);
            }

            return true;
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    private static void Limit(string group, string file, long value)
    {
        string path = Path.Combine(group, file);
        if (File.Exists(path))
        {
            File.WriteAllText(path, value.ToString(CultureInfo.InvariantCulture));
        }
    }
}
