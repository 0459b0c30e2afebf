namespace Vmm.Storage.Qcow2;

/// <summary>
/// Clusters on their way back: nothing in memory refers to them any more. One is handed out again only when the change that dropped it is
/// durable, and every operation that may still read or write it is over (a grace period). Under the disk's lock.
/// </summary>
internal sealed class FreedClusters
{
    private readonly List<(ClusterRun Run, long Generation)> _fresh = []; // the drop is not durable
    private readonly int[] _running = new int[2]; // operations that began in each period
    private List<ClusterRun> _durable = [], _grace = []; // waiting for a period to begin; for its end
    private int _period;

    /// <summary>Some are not durable yet: the next cycle of the metadata does that.</summary>
    internal bool AnyFresh => _fresh.Count > 0;

    /// <summary>Some may be released now.</summary>
    internal bool CanRelease => !IsKept && ((_grace.Count > 0 && _running[1 - _period] == 0) || (_grace.Count == 0 && _durable.Count > 0));

    /// <summary>None is released now: somebody else reads the file by tables of an earlier time.</summary>
    internal bool IsKept { get; set; }

    /// <summary>Some are not released yet.</summary>
    internal bool Any => _fresh.Count + _durable.Count + _grace.Count > 0;

    /// <summary>An operation begins to look at tables; the period it belongs to.</summary>
    internal int Enter()
    {
        _running[_period]++;
        return _period;
    }

    /// <summary>The operation is over; true when that ends a period somebody waits for.</summary>
    internal bool Exit(int period) => --_running[period] == 0 && period != _period && _grace.Count > 0;

    /// <summary>An entry that named them was changed in memory, in this generation.</summary>
    internal void Add(ClusterRun run, long generation) => _fresh.Add((run, generation));

    /// <summary>They were never named by an entry.</summary>
    internal void AddUnused(ClusterRun run) => _durable.Add(run);

    /// <summary>All changes up to a generation are durable.</summary>
    internal void BecameDurable(long generation)
    {
        int kept = 0;
        for (int i = 0; i < _fresh.Count; i++)
        {
            if (_fresh[i].Generation <= generation)
            {
                _durable.Add(_fresh[i].Run);
            }
            else
            {
                _fresh[kept++] = _fresh[i];
            }
        }

        _fresh.RemoveRange(kept, _fresh.Count - kept);
    }

    /// <summary>Those that nobody can use any more; a period begins for those that became durable since.</summary>
    internal List<ClusterRun> TakeReleased()
    {
        List<ClusterRun> released = [];
        if (_running[1 - _period] == 0)
        {
            (released, _grace) = (_grace, released);
        }

        if (_grace.Count == 0 && _durable.Count > 0)
        {
            (_grace, _durable) = (_durable, _grace);
            _period = 1 - _period; // operations that begin from now on cannot find them
            if (_running[1 - _period] == 0)
            {
                released.AddRange(_grace);
                _grace.Clear();
            }
        }

        return released;
    }
}
