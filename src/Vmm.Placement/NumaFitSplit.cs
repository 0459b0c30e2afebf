using Vmm.Memory;

namespace Vmm.Placement;

/// <summary>
/// When not all vnodes can lie whole: the largest first, whole while that goes, the others over the nodes with most left. Nothing is given
/// twice.
/// </summary>
internal static class NumaFitSplit
{
    internal static IReadOnlyList<NodeShare>[] Run(NumaFitProblem problem)
    {
        Dictionary<ulong, ulong[]> left = problem.Room.ToDictionary(r => r.Key, r => (ulong[])r.Value.Clone());
        IReadOnlyList<NodeShare>?[] shares = new IReadOnlyList<NodeShare>[problem.Vnodes.Count];
        int[] order = [.. Enumerable.Range(0, shares.Length).OrderByDescending(problem.Need).ThenBy(i => i)];
        foreach (int vnode in order)
        {
            shares[vnode] = Whole(problem, vnode, left[problem.PageOf(vnode)]);
        }

        foreach (int vnode in order)
        {
            shares[vnode] ??= Parts(problem, vnode, left[problem.PageOf(vnode)]);
        }

        return shares!;
    }

    private static NodeShare[]? Whole(NumaFitProblem problem, int vnode, ulong[] left)
    {
        ulong need = problem.Need(vnode);
        int best = -1;
        foreach (int node in Enumerable.Range(0, left.Length).Where(n => problem.CanLieOn(vnode, n) && left[n] >= need))
        {
            // the tightest: large holes stay for large vnodes
            bool better = best < 0 || Rank(problem, vnode, node).CompareTo(Rank(problem, vnode, best)) is var rank
                && (rank < 0 || (rank == 0 && left[node] < left[best]));
            best = better ? node : best;
        }

        if (best < 0)
        {
            return null;
        }

        left[best] -= need;
        return [new NodeShare(problem.Nodes[best].Id, new ByteSize(need))];
    }

    private static int Rank(NumaFitProblem problem, int vnode, int node) =>
        problem.Wanted[vnode].Contains(node) ? 0 : problem.Nodes[node].Cpus.Count > 0 || problem.Vnodes[vnode].Cpus.Count == 0 ? 1 : 2;

    /// <summary>As few nodes as do; fewer bytes than it needs when the host has no more.</summary>
    private static NodeShare[] Parts(NumaFitProblem problem, int vnode, ulong[] left)
    {
        ulong need = problem.Need(vnode), page = problem.PageOf(vnode);
        List<NodeShare> parts = [];
        foreach (int node in Enumerable.Range(0, left.Length)
            .Where(n => problem.CanLieOn(vnode, n))
            .OrderByDescending(n => left[n])
            .ThenBy(n => n))
        {
            ulong part = Math.Min(need, left[node] / page * page);
            if (part > 0)
            {
                left[node] -= part;
                need -= part;
                parts.Add(new NodeShare(problem.Nodes[node].Id, new ByteSize(part)));
            }
        }

        return [.. parts];
    }
}
