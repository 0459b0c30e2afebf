using System.Globalization;
using Vmm.Machine.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>
/// Control groups of workers (cgroups(7)): <c>vmm/ID</c> below the root of the hierarchy, v2 where its controllers are, otherwise the v1 controllers memory
/// and pids. A group limits what a worker that was taken over can eat; a healthy VM stays far below.
/// </summary>
internal sealed class WorkerCgroups
{
    /// <summary>
    /// Beyond guest memory: the runtime (about 40 MB resident), page tables of guest memory, KVM's own and the page cache that the worker's buffered disk I/O is charged
    /// with (which the kernel takes back before it kills). Measured on idle and disk-loaded micro-guests: 25 to 60 MB.
    /// </summary>
    private const long Overhead = 256L << 20;

    /// <summary>One part in 32 of guest memory: page tables of both kinds, dirty bitmaps.</summary>
    private const int OverheadShare = 32;

    private const int MostTasks = 512;

    private static readonly string[] V1Controllers = ["memory", "pids"];

    private readonly List<string> _parents = [];
    private readonly bool _v2;

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
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            Problem = cause.Message;
        }
    }

    /// <summary>Why there are no groups; null when there are.</summary>
    internal string? Problem { get; }

    /// <summary>Makes the group of a VM and moves its worker in. Null, or why that was not possible; then nothing is left.</summary>
    internal string? Confine(string vmId, int processId, VmSpec spec)
    {
        if (Problem is not null)
        {
            return Problem;
        }

        ulong most = 0;
        foreach (VnodeSpec vnode in spec.EffectiveVnodes)
        {
            most += Math.Max(vnode.Memory, vnode.MaxMemory ?? default);
        }

        long limit = (long)(most + (most / OverheadShare)) + Overhead;
        try
        {
            foreach (string parent in _parents)
            {
                string group = Directory.CreateDirectory(Path.Combine(parent, vmId)).FullName;
                Limit(group, _v2 ? "memory.max" : "memory.limit_in_bytes", limit);
                Limit(group, "pids.max", MostTasks);
                File.WriteAllText(Path.Combine(group, "cgroup.procs"), processId.ToString(CultureInfo.InvariantCulture));
            }

            return null;
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            Remove(vmId);
            return cause.Message;
        }
    }

    /// <summary>There is a group of this VM.</summary>
    internal bool Has(string vmId) => _parents.Count > 0 && _parents.TrueForAll(parent => Directory.Exists(Path.Combine(parent, vmId)));

    /// <summary>Removes the group of a VM whose worker has ended. One that is not empty yet, or not there, is left.</summary>
    internal void Remove(string vmId)
    {
        foreach (string parent in _parents)
        {
            string group = Path.Combine(parent, vmId);
            // A process that was just reaped may be counted for a moment longer.
            for (int attempt = 0; vmId.Length > 0 && attempt < 10 && !TryDelete(group); attempt++)
            {
                Thread.Sleep(5);
            }
        }
    }

    /// <summary>Removes the groups of VMs that have no worker any more.</summary>
    internal void Sweep(IReadOnlySet<string> alive)
    {
        foreach (string parent in _parents)
        {
            foreach (string group in Directory.Exists(parent) ? Directory.GetDirectories(parent) : [])
            {
                string id = Path.GetFileName(group);
                if (Guid.TryParse(id, out _) && !alive.Contains(id))
                {
                    _ = TryDelete(group); // another daemon's group has a process in it, and stays
                }
            }
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
