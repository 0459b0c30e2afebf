using Vmm.Memory;

namespace Vmm.Placement;

/// <summary>
/// Looks for the best mapping in which every vnode lies whole on one node, or on the set of nodes it wants, and no node gives more than it
/// has: depth first, largest vnodes first, cutting off what is worse already. It is complete up to an amount of work, which the usual
/// topologies stay far below; beyond it the best mapping found so far stands.
/// </summary>
internal sealed class NumaFitSearch(NumaFitProblem problem, CancellationToken cancellation)
{
    private const long MostWork = 4_000_000; // pairs of vnodes looked at; some tenths of a second

    private readonly Dictionary<ulong, ulong[]> _left = problem.Room.ToDictionary(r => r.Key, r => (ulong[])r.Value.Clone());
    private readonly int[] _order = [.. Enumerable.Range(0, problem.Vnodes.Count).OrderByDescending(problem.Need).ThenBy(i => i)];
    private readonly int[] _vcpus = new int[problem.Nodes.Count];
    private readonly int[]?[] _places = new int[problem.Vnodes.Count][];
    private readonly ulong[][] _taken = [.. Enumerable.Range(0, problem.Vnodes.Count).Select(_ => new ulong[problem.Nodes.Count])];
    private long _work;
    private Cost? _bestCost;
    private IReadOnlyList<NodeShare>[]? _best;

    /// <summary>Shares of every vnode; null when none was found.</summary>
    internal IReadOnlyList<NodeShare>[]? Run()
    {
        Place(0, default);
        return _best;
    }

    private void Place(int depth, Cost cost)
    {
        if (depth == _order.Length)
        {
            if (_bestCost is not { } best || cost.CompareTo(best) < 0)
            {
                _bestCost = cost;
                _best = [.. _taken.Select((row, i) => (IReadOnlyList<NodeShare>)
                [
                    .. Used(_places[i]!, row).Select(n => new NodeShare(problem.Nodes[n].Id, new ByteSize(row[n])))
                ])];
            }

            return;
        }

        cancellation.ThrowIfCancellationRequested();
        int vnode = _order[depth];
        foreach ((int[] nodes, Cost with) in Candidates(vnode, cost))
        {
            if (_work > MostWork)
            {
                return;
            }

            if ((_bestCost is { } best && with.CompareTo(best) >= 0) || !Take(vnode, nodes))
            {
                continue;
            }

            Place(depth + 1, with);
            GiveBack(vnode);
        }
    }

    /// <summary>What the vnode wants first when it costs no more than others: the first of equals stays.</summary>
    private List<(int[] Nodes, Cost With)> Candidates(int vnode, Cost cost)
    {
        List<(int[] Nodes, Cost With)> all = [];
        _work += (long)problem.Nodes.Count * problem.Vnodes.Count;
        int[] wanted = problem.Wanted[vnode];
        if (wanted.Length > 0)
        {
            all.Add((wanted, With(cost, vnode, wanted, moved: false)));
        }

        for (int node = 0; node < problem.Nodes.Count; node++)
        {
            if (wanted is not [var only] || only != node)
            {
                all.Add(([node], With(cost, vnode, [node], moved: problem.Vnodes[vnode].HostNodes.Count > 0)));
            }
        }

        return [.. all.Where(c => c.Nodes.All(n => problem.CanLieOn(vnode, n))).OrderBy(c => c.With)]; // OrderBy is stable
    }

    /// <summary>The nodes that give something; the first when the vnode has no memory.</summary>
    private static IEnumerable<int> Used(int[] nodes, ulong[] taken) =>
        nodes.Any(n => taken[n] > 0) ? nodes.Where(n => taken[n] > 0) : nodes.Take(1);

    private Cost With(Cost cost, int vnode, int[] nodes, bool moved)
    {
        int vcpus = problem.Vnodes[vnode].Cpus.Count;
        bool homeless = vcpus > 0 && !nodes.Any(n => problem.Nodes[n].Cpus.Count > 0);
        int crowd = 0;
        if (nodes is [var node] && !homeless)
        {
            crowd = Over(_vcpus[node] + vcpus, node) - Over(_vcpus[node], node);
        }

        int doubled = 0;
        long off = 0;
        for (int other = 0; other < _places.Length; other++)
        {
            if (_places[other] is { } there && other != vnode)
            {
                off += Math.Abs(problem.Guest(vnode, other) - Between(nodes, there));
                doubled += nodes.Intersect(there).Any() && !problem.WantTheSame(vnode, other) ? 1 : 0;
            }
        }

        long moves = moved ? 1 : 0;
        return problem.HasDistances
            ? new Cost(
                cost.Homeless + (homeless ? 1 : 0), cost.Crowd + crowd, cost.Doubled + doubled, cost.First + off, cost.Second + moves)
            : new Cost(
                cost.Homeless + (homeless ? 1 : 0), cost.Crowd + crowd, cost.Doubled + doubled, cost.First + moves, cost.Second + off);
    }

    private int Over(int vcpus, int node) => Math.Max(0, vcpus - problem.Nodes[node].Cpus.Count);

    private int Between(int[] from, int[] to)
    {
        int sum = 0;
        foreach (int f in from)
        {
            foreach (int t in to)
            {
                sum += problem.Host(f, t);
            }
        }

        return sum / (from.Length * to.Length);
    }

    private bool Take(int vnode, int[] nodes)
    {
        ulong[] left = _left[problem.PageOf(vnode)];
        ulong need = problem.Need(vnode), sum = 0;
        foreach (int node in nodes)
        {
            sum += left[node];
        }

        if (sum < need)
        {
            return false;
        }

        foreach (int node in nodes.OrderByDescending(n => left[n]).ThenBy(n => n))
        {
            ulong part = Math.Min(need, left[node]);
            left[node] -= part;
            _taken[vnode][node] = part;
            need -= part;
        }

        if (nodes is [var one])
        {
            _vcpus[one] += problem.Vnodes[vnode].Cpus.Count;
        }

        _places[vnode] = nodes;
        return true;
    }

    private void GiveBack(int vnode)
    {
        int[] nodes = _places[vnode]!;
        foreach (int node in nodes)
        {
            _left[problem.PageOf(vnode)][node] += _taken[vnode][node];
            _taken[vnode][node] = 0;
        }

        if (nodes is [var one])
        {
            _vcpus[one] -= problem.Vnodes[vnode].Cpus.Count;
        }

        _places[vnode] = null;
    }

    /// <summary>What a mapping costs, the weightiest first; it only grows with every vnode.</summary>
    /// <param name="Homeless">Vnodes with vCPUs on nodes without CPUs.</param>
    /// <param name="Crowd">vCPUs beyond the CPUs of their node.</param>
    /// <param name="Doubled">Pairs of vnodes on one node that did not ask for that: to the guest they are two places.</param>
    /// <param name="First">Differences between the guest's distances and the host's when the spec gives distances, else moved
    /// vnodes.</param>
    /// <param name="Second">The other of the two.</param>
    private readonly record struct Cost(int Homeless, int Crowd, int Doubled, long First, long Second) : IComparable<Cost>
    {
        public int CompareTo(Cost other) =>
            Homeless != other.Homeless ? Homeless.CompareTo(other.Homeless)
            : Crowd != other.Crowd ? Crowd.CompareTo(other.Crowd)
            : Doubled != other.Doubled ? Doubled.CompareTo(other.Doubled)
            : First != other.First ? First.CompareTo(other.First)
            : Second.CompareTo(other.Second);
    }
}
