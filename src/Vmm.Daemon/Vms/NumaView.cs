using System.Globalization;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>
/// What a worker says about its vnodes put together with what the kernel says about the worker, and what sysfs says about the host.
/// </summary>
internal static class NumaView
{
    /// <summary>One vnode.</summary>
    /// <param name="home">What the worker says.</param>
    /// <param name="processId">The worker.</param>
    /// <param name="present">Bytes per vnode and node; null when unknown.</param>
    internal static VnodeNuma Of(VnodeHomeInfo home, int processId, IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? present)
    {
        NodeBytes[]? nodes = present is null
            ? null
            : [.. (present.GetValueOrDefault(home.Vnode) ?? new Dictionary<int, ulong>()).Select(n => new NodeBytes(n.Key, n.Value))];
        ulong total = nodes?.Aggregate(0UL, (sum, n) => sum + n.Bytes) ?? 0;
        ulong there = nodes?.Where(n => home.HostNodes.Contains(n.Node)).Aggregate(0UL, (sum, n) => sum + n.Bytes) ?? 0;
        // rounded down: 100 is all of it
        double? atHome = home.HostNodes.Count == 0 || total == 0 ? null : Math.Floor(there * 1000.0 / total) / 10;
        int[] vcpus = [.. home.Threads.Select(t => Vcpu(t.Name)).Where(v => v >= 0).Order()];
        return new VnodeNuma(home.Vnode, NumberSet.Format(vcpus), NumberSet.Format(home.HostNodes), home.Policy, home.PageBytes, nodes,
            atHome, NumberSet.Format(home.HostCpus),
            [.. home.Threads.Select(t => Place(t, processId))]);
    }

    /// <summary>How the vnodes of a spec would lie on this host now.</summary>
    internal static NumaFitInfo Fit(VmSpec spec, CancellationToken cancellation) =>
        Of(NumaFit.Map(spec, HostTopology.Read(), HugePagePool.Read(), cancellation));

    /// <summary>The host's nodes with who sits there.</summary>
    /// <param name="vms">VMs and their bytes per vnode and node.</param>
    internal static HostNuma Host(IEnumerable<(string Vm, IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? Present)> vms)
    {
        (string Vm, int Vnode, int Node, ulong Bytes)[] all =
            [.. vms.SelectMany(vm => vm.Present ?? new Dictionary<int, IReadOnlyDictionary<int, ulong>>(), (vm, vnode) => (vm.Vm, vnode))
                .SelectMany(v => v.vnode.Value, (v, node) => (v.Vm, v.vnode.Key, node.Key, node.Value))];
        IReadOnlyList<HugePagePool> pools = HugePagePool.Read();
        return new HostNuma([.. HostTopology.Read().Nodes
            .Select(n => new HostNumaNode(n.Id, NumberSet.Format(n.Cpus), n.TotalBytes, n.FreeBytes, n.AvailableBytes, n.Distances,
                [.. pools.Where(p => p.Node == n.Id && p.Total > 0).Select(p => new HugePageInfo(p.PageBytes, p.Total, p.Free))],
                [.. all.Where(t => t.Node == n.Id).Select(t => new NodeTenant(t.Vm, t.Vnode, t.Bytes))]))]);
    }

    private static NumaFitInfo Of(NumaFitResult fit) =>
        new(
            [
                .. fit.Vnodes.Select(v => new VnodeFitInfo(
                    v.Vnode,
                    Names.Of(v.Outcome),
                    NumberSet.Format(v.Wanted),
                    [.. v.Shares.Select(s => new NodeBytes(s.Node, s.Bytes))],
                    v.Text))],
            fit.Distances.Percent,
            fit.Distances.Text);

    private static int Vcpu(string thread) =>
        thread.StartsWith("vcpu", StringComparison.Ordinal)
            && int.TryParse(thread.AsSpan(4), NumberStyles.None, CultureInfo.InvariantCulture, out int number)
            ? number
            : -1;

    /// <summary>As the kernel has it, whatever the worker meant.</summary>
    private static ThreadPlace Place(HomedThreadInfo thread, int processId)
    {
        const string Allowed = "Cpus_allowed_list:";
        try
        {
            string folder = string.Create(CultureInfo.InvariantCulture, $"/proc/{processId}/task/{thread.Id}");
            string? allowed = File.ReadLines(Path.Combine(folder, "status"))
                .FirstOrDefault(l => l.StartsWith(Allowed, StringComparison.Ordinal))?[Allowed.Length..].Trim();
            string stat = File.ReadAllText(Path.Combine(folder, "stat"));
            // proc(5): field 39 is the CPU; the name, field 2, may contain anything but its last bracket.
            string[] fields = stat[(stat.LastIndexOf(')') + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
            return new ThreadPlace(
                thread.Name,
                thread.Id,
                allowed,
                fields.Length > 36 && int.TryParse(fields[36], NumberStyles.None, CultureInfo.InvariantCulture, out int cpu) ? cpu : null);
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return new ThreadPlace(thread.Name, thread.Id, null, null);
        }
    }
}
