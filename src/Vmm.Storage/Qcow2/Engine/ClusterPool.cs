namespace Vmm.Storage.Qcow2;

/// <summary>
/// Clusters that may be handed out: their refcount is 1 in the file and durable, they read as zeros, and nothing refers to them. So no
/// table that reaches the file ever names a cluster whose refcount did not; a crash leaves them as leaks. Under the disk's lock.
/// </summary>
internal sealed class ClusterPool
{
    private readonly List<ClusterRun> _runs = [];

    /// <summary>Clusters in it.</summary>
    internal int Count { get; private set; }

    /// <summary>Puts clusters in.</summary>
    internal void Add(ClusterRun run)
    {
        Count += run.Count;
        int last = _runs.Count - 1;
        if (last >= 0 && _runs[last].End == run.First)
        {
            _runs[last] = new ClusterRun(_runs[last].First, _runs[last].Count + run.Count);
            return;
        }

        _runs.Add(run);
    }

    /// <summary>Takes clusters that lie side by side, at least one and at most so many; an empty run when there is none.</summary>
    internal ClusterRun Take(int most)
    {
        if (_runs.Count == 0)
        {
            return default;
        }

        ClusterRun first = _runs[0];
        int taken = Math.Min(most, first.Count);
        if (taken == first.Count)
        {
            _runs.RemoveAt(0);
        }
        else
        {
            _runs[0] = new ClusterRun(first.First + (uint)taken, first.Count - taken);
        }

        Count -= taken;
        return new ClusterRun(first.First, taken);
    }
}
