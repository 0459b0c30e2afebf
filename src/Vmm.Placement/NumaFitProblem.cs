using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Placement;

/// <summary>What a mapping starts from, by index of vnode and of host node.</summary>
internal sealed class NumaFitProblem
{
    // What HostDistances gives vnodes on host nodes that do not say how far they are: two places, not one.
    private const int AssumedDistance = 20;

    private readonly int[][] _hostDistances;
    private readonly IReadOnlyList<IReadOnlyList<int>>? _guestDistances;

    internal NumaFitProblem(
        IReadOnlyList<VnodeSpec> vnodes, IReadOnlyList<IReadOnlyList<int>>? distances, HostTopology host, IReadOnlyList<HugePagePool> pools)
    {
        Vnodes = vnodes;
        Nodes = host.Nodes;
        _guestDistances = distances;
        _hostDistances = [.. Nodes.Select(from => Nodes.Select(to => HostTopology.Distance(from, to, Nodes)).ToArray())];
        Wanted = new int[vnodes.Count][];
        for (int i = 0; i < vnodes.Count; i++)
        {
            // As NumaPlacement deals out vnodes without a wish.
            int[] wanted = vnodes[i].HostNodes.Count == 0 ? [i % Nodes.Count] : [.. vnodes[i].HostNodes.Select(IndexOf)];
            Wanted[i] = wanted.Contains(-1) ? [] : wanted;
        }

        foreach (ulong size in vnodes.Select(v => v.PageSize.Bytes).Distinct())
        {
            Room[size] = size <= ByteSize.BytesPerPage
                ? [.. Nodes.Select(n => n.AvailableBytes / size * size)]
                : [.. Nodes.Select(
                    n => pools.Where(p => p.Node == n.Id && p.PageBytes == size).Aggregate(0UL, (sum, p) => sum + (p.Free * size)))];
        }
    }

    internal IReadOnlyList<VnodeSpec> Vnodes { get; }

    internal IReadOnlyList<HostNode> Nodes { get; }

    /// <summary>Nodes that a vnode is meant for; empty when one of them does not exist.</summary>
    internal int[][] Wanted { get; }

    /// <summary>What the nodes have, by page size: huge pages are a pool of their own.</summary>
    internal Dictionary<ulong, ulong[]> Room { get; } = [];

    internal bool HasDistances => _guestDistances is not null;

    internal ulong Need(int vnode) => Vnodes[vnode].Memory;

    internal ulong PageOf(int vnode) => Vnodes[vnode].PageSize;

    /// <summary>A vnode that has memory, or can get some, cannot be on a node that has none at all.</summary>
    internal bool CanLieOn(int vnode, int node) => Nodes[node].TotalBytes > 0 || (Need(vnode) == 0 && Vnodes[vnode].HotMemory == 0);

    internal bool WantTheSame(int one, int other) => Vnodes[one].HostNodes.Intersect(Vnodes[other].HostNodes).Any();

    internal int Guest(int from, int to) => _guestDistances is { } given ? given[from][to] : AssumedDistance;

    internal int Host(int from, int to) => _hostDistances[from][to];

    /// <summary>The vnode would lie there by itself, without anything being written into its spec.</summary>
    internal bool IsDefault(int vnode, IReadOnlyList<NodeShare> shares) =>
        Wanted[vnode].Length > 0 && shares.All(s => Wanted[vnode].Any(w => Nodes[w].Id == s.Node));

    private int IndexOf(int id)
    {
        for (int i = 0; i < Nodes.Count; i++)
        {
            if (Nodes[i].Id == id)
            {
                return i;
            }
        }

        return -1;
    }
}
