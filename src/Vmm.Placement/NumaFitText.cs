using Vmm.Memory;

namespace Vmm.Placement;

/// <summary>What became of one vnode, as value and in words.</summary>
internal static class NumaFitText
{
    internal static VnodeFit Of(NumaFitProblem problem, int vnode, IReadOnlyList<NodeShare> shares)
    {
        IReadOnlyList<int> wanted = problem.Vnodes[vnode].HostNodes;
        ulong given = shares.Aggregate(0UL, (sum, s) => sum + s.Bytes), need = problem.Need(vnode);
        if (given < need || shares.Count == 0)
        {
            string there = shares.Count > 0 ? string.Join(", ", shares.Select(Describe)) + " left" : "nothing left for it";
            return new VnodeFit(vnode, FitOutcome.NoRoom, wanted, [new NodeShare(Overflow(problem, vnode, shares), new ByteSize(need))],
                $"does not fit: needs {Pages(problem, vnode, need)}, and the host has {there}");
        }

        string where = shares.Count == 1 ? $"host node {shares[0].Node}" : string.Join(", ", shares.Select(Describe));
        if (problem.IsDefault(vnode, shares) || (wanted.Count == 0 && shares.Count == 1))
        {
            return new VnodeFit(
                vnode, FitOutcome.Exact, wanted, shares, wanted.Count == 0 ? $"has no wish: {where}" : $"as wanted: {where}");
        }

        string why = Why(problem, vnode, wanted, need);
        return shares.Count == 1
            ? new VnodeFit(vnode, FitOutcome.Moved, wanted, shares, $"moved to {where}: {why}")
            : new VnodeFit(vnode, FitOutcome.Split, wanted, shares,
                $"split, {where}: {why}, and no other host node can hold it whole beside the other vnodes");
    }

    private static string Why(NumaFitProblem problem, int vnode, IReadOnlyList<int> wanted, ulong need)
    {
        if (wanted.Count == 0)
        {
            return "no host node is named";
        }

        int[] missing = [.. wanted.Where(id => !problem.Nodes.Any(n => n.Id == id))];
        if (missing.Length > 0)
        {
            return $"host node {NumberSet.Format(missing)} does not exist here";
        }

        ulong room = problem.Wanted[vnode].Aggregate(0UL, (sum, n) => sum + problem.Room[problem.PageOf(vnode)][n]);
        return $"it needs {Pages(problem, vnode, need)}, host node {NumberSet.Format(wanted)} has {room >> 20} MiB"
            + (room >= need ? " for all vnodes that want it, or the distances are better" : "");
    }

    private static string Pages(NumaFitProblem problem, int vnode, ulong bytes) =>
        problem.PageOf(vnode) > ByteSize.BytesPerPage
            ? $"{bytes >> 20} MiB in pages of {problem.PageOf(vnode) >> 20} MiB"
            : $"{bytes >> 20} MiB";

    private static string Describe(NodeShare share) => $"{share.Bytes.Bytes >> 20} MiB on host node {share.Node}";

    /// <summary>
    /// Where a vnode goes that may overflow: where it wants to be, else where most of it fits, else where most memory is.
    /// </summary>
    private static int Overflow(NumaFitProblem problem, int vnode, IReadOnlyList<NodeShare> shares) =>
        problem.Wanted[vnode] is [var wanted, ..] ? problem.Nodes[wanted].Id
        : shares.Count > 0 ? shares[0].Node
        : problem.Nodes.OrderByDescending(n => n.TotalBytes).ThenBy(n => n.Id).First().Id;
}
