using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Placement;

/// <summary>
/// Refuses a VM whose memory must come from host nodes that cannot hold it now, before its first page is touched. A pure function.
/// </summary>
public static class NumaAdmission
{
    /// <summary>
    /// Refuses to move a vnode to host nodes that do not exist, have no memory, or cannot hold what they do not hold of it yet.
    /// </summary>
    /// <param name="vnode">Which vnode, for messages: <c>web1, vnode 1</c>.</param>
    /// <param name="hostNodes">Where to.</param>
    /// <param name="bytes">What would have to go there.</param>
    /// <param name="pageSize">Size of its pages: huge ones move to free huge pages only.</param>
    /// <param name="host">The host's nodes.</param>
    /// <param name="pools">The host's huge pages.</param>
    /// <exception cref="HostMismatchException">It cannot be moved there; the message has the numbers.</exception>
    public static void CheckMove(
        string vnode, IReadOnlyList<int> hostNodes, ulong bytes, ulong pageSize, HostTopology host, IReadOnlyList<HugePagePool> pools)
    {
        List<HostNode> nodes = [.. host.Nodes.Where(n => hostNodes.Contains(n.Id))];
        if (!host.HasNuma)
        {
            throw new HostMismatchException($"{vnode}: this host's kernel has no NUMA, there is nowhere to move to");
        }

        if (hostNodes.Count == 0 || nodes.Count < hostNodes.Count || nodes.Exists(n => n.TotalBytes == 0))
        {
            throw new HostMismatchException($"{vnode}: host nodes '{NumberSet.Format(hostNodes)}' are not all there: this host has memory "
                + $"on {NumberSet.Format([.. host.Nodes.Where(n => n.TotalBytes > 0).Select(n => n.Id)])}");
        }

        if (pageSize > ByteSize.BytesPerPage)
        {
            ulong free = pools.Where(p => p.PageBytes == pageSize && hostNodes.Contains(p.Node)).Aggregate(0UL, (sum, p) => sum + p.Free),
                needed = (bytes + pageSize - 1) / pageSize;
            if (free < needed)
            {
                throw new HostMismatchException($"{vnode}: {needed} huge pages of {pageSize >> 20} MiB would have to go to host node "
                    + $"{NumberSet.Format(hostNodes)}, which has {free} free: reserve more there through nr_hugepages");
            }
        }
        else if (nodes.Aggregate(0UL, (sum, n) => sum + n.AvailableBytes) is var available && bytes > available)
        {
            throw new HostMismatchException($"{vnode}: {bytes >> 20} MiB would have to go to host node {NumberSet.Format(hostNodes)}, "
                + $"which has {available >> 20} MiB available (all: {NumaProjection.Describe(host.Nodes)})");
        }
    }

    /// <summary>
    /// Looks whether the host nodes are there, and at every vnode with policy strict; the others may take memory from anywhere.
    /// </summary>
    /// <exception cref="HostMismatchException">A host node is missing, or a set of them has less than is asked of it; the message has all
    /// of that with the numbers.</exception>
    public static void Check(VmSpec spec, HostTopology host)
    {
        List<string> problems = [];
        IReadOnlyList<VnodeSpec> vnodes = spec.EffectiveVnodes;
        for (int i = 0; i < vnodes.Count && host.Nodes.Count > 0; i++)
        {
            int[] missing = [.. vnodes[i].HostNodes.Where(n => !host.HasNode(n))];
            if (missing.Length > 0)
            {
                problems.Add($"vnode {i} names host node {NumberSet.Format(missing)}, which does not exist");
            }
        }

        foreach (IGrouping<string, VnodeSpec> same in vnodes.Where(
            v => v.Policy == VnodePolicy.Strict && v.PageSize <= 4096 && v.HostNodes.All(n => host.HasNode(n)))
            .GroupBy(v => NumberSet.Format(v.HostNodes), StringComparer.Ordinal))
        {
            ulong needed = same.Aggregate(0UL, (sum, v) => sum + v.Memory);
            ulong available = host.Nodes.Where(n => same.First().HostNodes.Contains(n.Id))
                .Aggregate(0UL, (sum, n) => sum + n.AvailableBytes);
            if (host.Nodes.Count > 0 && needed > available)
            {
                problems.Add($"{needed >> 20} MiB must come from host node {same.Key}, which has {available >> 20} MiB available");
            }
        }

        if (problems.Count > 0)
        {
            throw new HostMismatchException(
                $"{spec.Name}: {string.Join("; ", problems)} (all: "
                + $"{NumaProjection.Describe(host.Nodes)}): take less, other nodes, a policy other than strict, or numa: {{fit: best}}, "
                + "which maps it as well as possible");
        }
    }
}
