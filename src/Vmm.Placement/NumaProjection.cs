using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Placement;

/// <summary>
/// A virtual topology that follows the host: as few vnodes as can each lie wholly on one host node, of equal size, on host nodes near each
/// other. A pure function of what the VM needs and what the host has free.
/// </summary>
public static class NumaProjection
{
    /// <summary>The spec with vnodes; one whose numa is not automatic stays as it is.</summary>
    /// <exception cref="HostMismatchException">The VM does not fit; the message has the numbers.</exception>
    public static VmSpec Apply(VmSpec spec, HostTopology host)
    {
        if (spec.Numa is not { Auto: true } wish)
        {
            return spec;
        }

        List<HostNode> nodes = [.. host.Nodes.Where(n => n.Cpus.Count > 0 && n.AvailableBytes >= NumaSplit.Unit)];
        if (!host.HasNuma || nodes.Count == 0)
        {
            return NumaSplit.Apply(spec, wish.Count ?? 1);
        }

        if (wish.Count is { } count)
        {
            List<HostNode> chosen = Nearest(nodes, Math.Min(count, nodes.Count));
            return Place(NumaSplit.Apply(spec, count), vnode => chosen[vnode * chosen.Count / count]);
        }

        // CPUs may be shared between VMs, memory may not: more vCPUs than fit beside the memory is no reason to refuse.
        foreach (bool withCpus in spec.Cpus <= nodes.Sum(n => n.Cpus.Count) ? (bool[])[true, false] : [false])
        {
            for (int vnodes = 1; vnodes <= nodes.Count; vnodes++)
            {
                List<HostNode> roomy = Roomy(spec, nodes, vnodes, withCpus);
                if (roomy.Count >= vnodes && spec.Memory / NumaSplit.Unit >= (ulong)vnodes)
                {
                    List<HostNode> chosen = Nearest(roomy, vnodes);
                    return Place(NumaSplit.Apply(spec, vnodes), vnode => chosen[vnode]);
                }
            }
        }

        throw new HostMismatchException(
            $"{spec.Name} needs {spec.Memory}, which no even split over this host's nodes can give: {Describe(nodes)} available");
    }

    /// <summary>What each host node has available, for messages.</summary>
    internal static string Describe(IEnumerable<HostNode> nodes) =>
        string.Join(", ", nodes.Select(n => $"node {n.Id} {n.AvailableBytes >> 20} MiB"));

    /// <summary>The nodes that can hold the largest share.</summary>
    private static List<HostNode> Roomy(VmSpec spec, List<HostNode> nodes, int vnodes, bool withCpus)
    {
        // The largest share: units are dealt out evenly, the bytes below a unit go to the last vnode.
        ulong units = spec.Memory / NumaSplit.Unit;
        ulong share = (((units + (ulong)vnodes - 1) / (ulong)vnodes) * NumaSplit.Unit) + (spec.Memory % NumaSplit.Unit);
        int cpus = (spec.Cpus + vnodes - 1) / vnodes;
        return [.. nodes.Where(n => n.AvailableBytes >= share && (!withCpus || n.Cpus.Count >= cpus))];
    }

    /// <summary>The group of nodes that are nearest to each other, the one with more to spare among equals; in node order.</summary>
    private static List<HostNode> Nearest(List<HostNode> nodes, int count)
    {
        List<HostNode> best = [];
        (long Distance, ulong Spare) bestScore = (long.MaxValue, 0);
        foreach (HostNode first in nodes)
        {
            List<HostNode> group = [first];
            while (group.Count < count)
            {
                group.Add(nodes.Except(group)
                    .OrderBy(n => group.Sum(g => (long)Distance(nodes, g, n)))
                    .ThenByDescending(n => n.AvailableBytes)
                    .ThenBy(n => n.Id)
                    .First());
            }

            (long Distance, ulong Spare) score =
                (group.Sum(a => group.Sum(b => (long)Distance(nodes, a, b))), group.Aggregate(0UL, (sum, n) => sum + n.AvailableBytes));
            if (score.Distance < bestScore.Distance || (score.Distance == bestScore.Distance && score.Spare > bestScore.Spare))
            {
                (best, bestScore) = (group, score);
            }
        }

        return [.. best.OrderBy(n => n.Id)];
    }

    private static VmSpec Place(VmSpec spec, Func<int, HostNode> home) => spec with
    {
        Numa = spec.Numa! with
        {
            Vnodes = [.. spec.Numa!.Vnodes.Select((vnode, i) => vnode with { HostNodes = [home(i).Id], Policy = VnodePolicy.Preferred })]
        },
    };

    private static int Distance(List<HostNode> nodes, HostNode from, HostNode to) => HostTopology.Distance(from, to, nodes);
}
