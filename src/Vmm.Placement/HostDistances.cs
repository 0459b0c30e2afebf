using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Placement;

/// <summary>Distances between vnodes of a spec that gives none.</summary>
public static class HostDistances
{
    /// <summary>As between their host nodes on this host, which is read when every vnode has one; else 10 and 20.</summary>
    public static IReadOnlyList<IReadOnlyList<int>> Of(IReadOnlyList<VnodeSpec> vnodes) =>
        Of(vnodes, vnodes.Count > 1 && vnodes.All(v => v.HostNodes.Count == 1) ? HostTopology.Read() : HostTopology.Unknown);

    /// <summary>
    /// A pure function. Two vnodes on one host node are as far from each other as the nearest two host nodes: to the guest they are two
    /// places.
    /// </summary>
    public static IReadOnlyList<IReadOnlyList<int>> Of(IReadOnlyList<VnodeSpec> vnodes, HostTopology host)
    {
        int[][] rows = new int[vnodes.Count][];
        int near = host.Nodes.Count > 1 ? 254 : 20;
        foreach (HostNode from in host.Nodes)
        {
            foreach (HostNode to in host.Nodes)
            {
                near = from.Id == to.Id ? near : Math.Min(near, HostTopology.Distance(from, to, host.Nodes));
            }
        }

        for (int i = 0; i < rows.Length; i++)
        {
            rows[i] = new int[rows.Length];
            for (int j = 0; j < rows.Length; j++)
            {
                HostNode? from = Home(vnodes[i], host), to = Home(vnodes[j], host);
                int distance = from is null || to is null ? 20 : from.Id == to.Id ? near : HostTopology.Distance(from, to, host.Nodes);
                rows[i][j] = i == j ? 10 : Math.Clamp(distance, 11, 254); // 255 would be "unreachable" (ACPI 6.5 section 5.2.17)
            }
        }

        return rows;
    }

    private static HostNode? Home(VnodeSpec vnode, HostTopology host) =>
        vnode.HostNodes.Count == 1 ? host.Nodes.FirstOrDefault(n => n.Id == vnode.HostNodes[0]) : null;
}
