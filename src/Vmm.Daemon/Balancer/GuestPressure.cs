using Vmm.Contracts.Control;
using Vmm.Daemon.Vms;
using Vmm.Spec;

namespace Vmm.Daemon.Balancer;

/// <summary>What a guest's memory is like, per vnode.</summary>
internal static class GuestPressure
{
    /// <summary>What is available in a vnode, how much its tasks wait, and who says so.</summary>
    internal readonly record struct Of(ulong? Available, double? Stall, string Source);

    /// <summary>
    /// From the agent's report where it covers the vnode; else from the balloon's statistics, which are the whole VM's and taken to be
    /// spread evenly; else unknown.
    /// </summary>
    internal static Of Vnode(BalancerReading reading, VnodeMemoryInfo vnode, AgentReport? report)
    {
        int node = report is null ? -1 : GuestNode(reading.Spec, vnode.Vnode);
        if (node >= 0 && report!.Nodes.FirstOrDefault(n => n.Node == node) is { } told)
        {
            return new Of(Math.Min(told.Available, vnode.PresentBytes), report.Some / 100, "agent");
        }

        if (reading.Spec.BalancedByBalloon)
        {
            // One vnode: no need to spread, and what is in the balloon is in the guest's total or not, as its driver likes.
            return reading.Memory.Balloon?.AvailableBytes is { } left
                ? new Of(Math.Min(left, vnode.PresentBytes), null, "balloon")
                : new Of(null, null, "unknown");
        }

        return reading.Memory.Balloon is { AvailableBytes: { } available, TotalBytes: { } total } && total > 0
            ? new Of((ulong)(vnode.PresentBytes * Math.Min(1, (double)available / total)), null, "balloon")
            : new Of(null, null, "unknown");
    }

    /// <summary>
    /// A VM that is balanced by its balloon as if its one vnode grew and shrank: what the balloon holds is not there. What the guest only
    /// says it put in counts as there.
    /// </summary>
    internal static VnodeMemoryInfo AsVnode(BalancerReading reading, VnodeMemoryInfo vnode) =>
        reading is { Spec: { BalancedByBalloon: true, Balance.MinMemory: { } least }, Memory.Balloon: { } balloon }
            ? vnode with
            {
                LeastBytes = least,
                AskedBytes = vnode.MostBytes - Math.Min(balloon.TargetBytes, vnode.MostBytes),
                PresentBytes = vnode.MostBytes - Math.Min(balloon.HeldBytes, vnode.MostBytes),
                Driven = true,
                BlockBytes = BalanceSpec.BalloonBlock,
            }
            : vnode;

    /// <summary>
    /// The number that Linux gives a vnode: it counts proximity domains as it meets them in SRAT, processors first (acpi_map_pxm_to_node),
    /// and ours lists vCPUs in their order, then memory. -1: it has nothing of the vnode yet.
    /// </summary>
    internal static int GuestNode(VmSpec spec, int vnode)
    {
        IReadOnlyList<VnodeSpec> vnodes = spec.EffectiveVnodes;
        List<int> met = [];
        for (int cpu = 0; cpu < spec.Cpus && spec.Numa is { Auto: false }; cpu++)
        {
            for (int k = 0; k < vnodes.Count; k++)
            {
                if (vnodes[k].Cpus.Contains(cpu) && !met.Contains(k))
                {
                    met.Add(k);
                }
            }
        }

        met.AddRange(Enumerable.Range(0, Math.Max(vnodes.Count, vnode + 1)).Except(met).Order());
        return met.IndexOf(vnode);
    }
}
