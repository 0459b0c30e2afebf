using Vmm.Memory;

namespace Vmm.Placement;

/// <summary>How well the guest's SLIT agrees with the host's after a mapping.</summary>
internal static class NumaFitDistances
{
    internal static DistanceFit NotAsked { get; } = new(
        0, 0, 0, "the spec gives no distances: the guest is told those between its host nodes");

    internal static DistanceFit Of(IReadOnlyList<IReadOnlyList<int>>? guest, IReadOnlyList<NodeShare>[] shares, HostTopology host)
    {
        if (guest is null)
        {
            return NotAsked;
        }

        List<(int Guest, long Host)> pairs = [];
        for (int i = 0; i < shares.Length; i++)
        {
            for (int j = i + 1; j < shares.Length; j++)
            {
                pairs.Add((guest[i][j], Between(shares[i], shares[j], host)));
            }
        }

        int compared = 0, inOrder = 0, tied = 0;
        for (int a = 0; a < pairs.Count; a++)
        {
            for (int b = a + 1; b < pairs.Count; b++)
            {
                int wanted = pairs[a].Guest.CompareTo(pairs[b].Guest), found = pairs[a].Host.CompareTo(pairs[b].Host);
                if (wanted != 0)
                {
                    compared++;
                    inOrder += wanted == found ? 1 : 0;
                    tied += found == 0 ? 1 : 0;
                }
            }
        }

        DistanceFit fit = new(compared, inOrder, tied, "");
        return fit with
        {
            Text = compared == 0 ? "all vnodes are equally far from each other to the guest: the host's distances change no order"
                : $"{inOrder} of {compared} comparisons of distances are in the guest's order, {tied} tied, {compared - inOrder - tied} "
                    + $"reversed ({fit.Percent} %)",
        };
    }

    /// <summary>The mean over the shares, in hundredths: a vnode of which a part is near is nearer than one of which nothing is.</summary>
    private static long Between(IReadOnlyList<NodeShare> from, IReadOnlyList<NodeShare> to, HostTopology host)
    {
        UInt128 sum = 0, weight = 0;
        foreach (NodeShare f in from)
        {
            foreach (NodeShare t in to)
            {
                // Pages, and one more: a vnode without memory is somewhere, too.
                UInt128 both = (UInt128)((f.Bytes.Bytes / ByteSize.BytesPerPage) + 1) * ((t.Bytes.Bytes / ByteSize.BytesPerPage) + 1);
                sum += both * (uint)Distance(host, f.Node, t.Node);
                weight += both;
            }
        }

        return weight == 0 ? 2000 : (long)(sum * 100 / weight);
    }

    private static int Distance(HostTopology host, int from, int to) =>
        host.Nodes.FirstOrDefault(n => n.Id == from) is { } a && host.Nodes.FirstOrDefault(n => n.Id == to) is { } b
            ? HostTopology.Distance(a, b, host.Nodes)
            : 20;
}
