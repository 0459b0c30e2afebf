using Vmm.Memory;

namespace Vmm.Placement;

/// <summary>
/// Whether all vnodes have room on the nodes they want at once: a flow from vnodes over their nodes, by augmenting paths (Ford and
/// Fulkerson).
/// </summary>
internal static class NumaFitFlow
{
    /// <summary>Shares on wanted nodes only, or null: a wanted node is missing, or they have not enough.</summary>
    internal static IReadOnlyList<NodeShare>[]? AsWanted(NumaFitProblem problem)
    {
        int count = problem.Vnodes.Count;
        ulong[][] flow = [.. Enumerable.Range(0, count).Select(_ => new ulong[problem.Nodes.Count])];
        Dictionary<ulong, ulong[]> left = problem.Room.ToDictionary(r => r.Key, r => (ulong[])r.Value.Clone());
        for (int i = 0; i < count; i++)
        {
            if (problem.Wanted[i].Length == 0 || !problem.Wanted[i].All(n => problem.CanLieOn(i, n)))
            {
                return null;
            }

            ulong missing = problem.Need(i);
            while (missing > 0)
            {
                ulong pushed = Push(problem, flow, left[problem.PageOf(i)], i, missing, new bool[count]);
                if (pushed == 0)
                {
                    return null;
                }

                missing -= pushed;
            }
        }

        return [.. flow.Select((row, i) => Shares(problem, i, row))];
    }

    /// <summary>Gives a vnode some more of its nodes; another vnode makes room when it can be elsewhere.</summary>
    private static ulong Push(NumaFitProblem problem, ulong[][] flow, ulong[] left, int vnode, ulong most, bool[] asked)
    {
        asked[vnode] = true;
        foreach (int node in problem.Wanted[vnode])
        {
            if (left[node] > 0)
            {
                ulong direct = Math.Min(most, left[node]);
                left[node] -= direct;
                flow[vnode][node] += direct;
                return direct;
            }
        }

        foreach (int node in problem.Wanted[vnode])
        {
            for (int other = 0; other < flow.Length; other++)
            {
                if (asked[other] || flow[other][node] == 0 || problem.PageOf(other) != problem.PageOf(vnode))
                {
                    continue;
                }

                ulong freed = Push(problem, flow, left, other, Math.Min(most, flow[other][node]), asked);
                if (freed > 0)
                {
                    flow[other][node] -= freed;
                    flow[vnode][node] += freed;
                    return freed;
                }
            }
        }

        return 0;
    }

    private static NodeShare[] Shares(NumaFitProblem problem, int vnode, ulong[] row)
    {
        NodeShare[] shares = [.. problem.Wanted[vnode]
            .Where(n => row[n] > 0)
            .Select(n => new NodeShare(problem.Nodes[n].Id, new ByteSize(row[n])))];
        return shares.Length > 0 ? shares : [new NodeShare(problem.Nodes[problem.Wanted[vnode][0]].Id, ByteSize.Zero)];
    }
}
