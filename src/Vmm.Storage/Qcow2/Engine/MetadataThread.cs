namespace Vmm.Storage.Qcow2;

/// <summary>
/// The one owner of the top image's metadata in the file, whatever the number of queues: it reserves clusters, writes changed tables, gives
/// clusters back. It blocks in the host's calls; nodes go on meanwhile. A VM's payload never passes through it.
/// </summary>
internal sealed class MetadataThread : IDisposable
{
    /// <summary>Clusters that stay in the pool when they come back; the rest gets refcount 0.</summary>
    private const int KeptClusters = 256;

    private readonly ImageState _state;
    private readonly IImageFile _file;
    private readonly ImageTables _tables;
    private readonly Reservation _reservation;
    private readonly MetadataCycle _cycle;
    private readonly Qcow2DiskOptions _options;
    private readonly Lock _starting = new();
    private Thread? _thread;
    private bool _told;

    /// <exception cref="BlockException">The host failed.</exception>
    internal MetadataThread(ImageState state, Qcow2DiskOptions options)
    {
        _state = state;
        _options = options;
        ChainLayer top = state.Chain.Layers[0];
        _file = new GuardedFile(top.File, state, options.TellsWrites);
        _tables = top.Tables!;
        _reservation = new Reservation(state, _file);
        _cycle = new MetadataCycle(state, _file);
    }

    /// <summary>
    /// Starts it: there is work from now on. Not before, since what confines it is not in force while a machine is built.
    /// </summary>
    /// <exception cref="BlockException">The host has no thread.</exception>
    internal void Start()
    {
        lock (_starting)
        {
            if (_thread is not null)
            {
                return;
            }

            Thread thread = new(Begin) { Name = "qcow2", IsBackground = true };
            try
            {
                (_options.Start ?? (static thread => thread.Start()))(thread);
                _thread = thread;
            }
            catch (Exception cause) when (cause is InvalidOperationException or OutOfMemoryException or ThreadStartException)
            {
                throw new BlockException(BlockErrorKind.Io, $"disk {_file.Path}: no thread for its tables: {cause.Message}", cause)
                {
                    Path = _file.Path,
                };
            }
        }
    }

    private enum Work
    {
        Chore,
        Clusters,
        Cycle,
        Release,
        Backing,
        Stopped,
        End,
    }

    /// <summary>Writes what is left, gives reserved clusters back, and ends. No node uses the disk any more.</summary>
    public void Dispose()
    {
        lock (_state)
        {
            _state.IsClosing = true;
            Monitor.Pulse(_state);
        }

        _thread?.Join(); // without one nothing was changed
    }

    /// <summary>Has something done on this thread, and waits for it. One caller at a time.</summary>
    /// <exception cref="BlockException">It failed.</exception>
    internal void Do(Action chore)
    {
        Start();
        MetadataChore.Do(_state, chore);
    }

    /// <summary>The L1 table has at least so many entries. A chore.</summary>
    /// <exception cref="BlockException">The host failed: it is as it was.</exception>
    internal void GrowTable(uint entries) => new L1Growth(_state, _file, _reservation).Run(entries, MetadataIn);

    /// <summary>The header says another size of the disk; durable. A chore.</summary>
    /// <exception cref="BlockException">The host failed: either size is in the file, and each is right.</exception>
    internal void SetDiskSize(ulong before, ulong now)
    {
        try
        {
            ImageHeader.SetDiskSize(_file, now);
            _file.Flush();
        }
        catch (BlockException)
        {
            TryRestoreSize(before);
            throw;
        }
    }

    private void TryRestoreSize(ulong size)
    {
        try
        {
            ImageHeader.SetDiskSize(_file, size);
        }
        catch (BlockException)
        {
            // a disk that is larger at its next start than its guest was told has zeros there
        }
    }

    private void Begin()
    {
        _options.Ready?.Invoke();
        Run();
    }

    private void Run()
    {
        while (true)
        {
            Work work;
            lock (_state)
            {
                while (!HasWork(out work))
                {
                    Monitor.Wait(_state);
                }
            }

            switch (work)
            {
                case Work.Chore:
                    MetadataChore.Run(_state);
                    break;
                case Work.Clusters:
                    FetchClusters();
                    break;
                case Work.Cycle:
                    _cycle.Run();
                    break;
                case Work.Release:
                    Release();
                    break;
                case Work.Backing:
                    TakeBacking()?.Run(_file);
                    break;
                case Work.Stopped:
                    Stopped();
                    break;
                default:
                    Finish();
                    return;
            }
        }
    }

    // Under the lock.
    private bool HasWork(out Work work)
    {
        (bool any, work) = _state switch
        {
            { Chore: not null } => (true, Work.Chore),
            { Damage: not null } when !_told || !_state.FlushWaiters.IsEmpty || _state is { WantsClusters: true } or { Backing: not null }
                => (true, Work.Stopped),
            { Damage: not null } => (_state.IsClosing, Work.End),
            { WantsClusters: true } => (true, Work.Clusters),
            { WantsCycle: true } => (true, Work.Cycle),
            { Backing: not null } => (true, Work.Backing),
            { Freed.CanRelease: true } => (true, Work.Release),
            _ => (_state.IsClosing, Work.End),
        };
        return any;
    }

    private void FetchClusters()
    {
        ClusterRun run = default;
        BlockException? failure = null;
        try
        {
            run = _reservation.Reserve(MetadataIn);
        }
        catch (BlockException error)
        {
            failure = error;
        }

        lock (_state)
        {
            if (failure is null)
            {
                _state.Pool.Add(run);
                _state.LowWater = _reservation.LowWater;
            }

            if (failure is { Kind: BlockErrorKind.Damaged })
            {
                _state.Stop(failure);
            }

            if (failure is not null || _state.Pool.Count >= _state.LowWater)
            {
                _state.ClustersCame();
            }

            _state.PoolWaiters.Wake(failure);
        }
    }

    private void Release()
    {
        List<ClusterRun> runs, kept = [];
        int keep;
        lock (_state)
        {
            runs = _state.Freed.TakeReleased();
            keep = Math.Max(0, KeptClusters - _state.Pool.Count);
        }

        BlockException? failure = null;
        try
        {
            _reservation.Release(runs, keep, kept);
        }
        catch (BlockException error)
        {
            failure = error; // what could not be given back is a leak
        }

        lock (_state)
        {
            foreach (ClusterRun run in kept)
            {
                _state.Pool.Add(run);
            }

            if (failure is { Kind: BlockErrorKind.Damaged })
            {
                _state.Stop(failure);
            }
        }
    }

    // Under the lock: a metadata cluster within the run.
    private ulong? MetadataIn(ClusterRun run)
    {
        if (_reservation.IsFixed(run, out ulong cluster) || _reservation.Holds(run, out cluster))
        {
            return cluster;
        }

        lock (_state)
        {
            foreach (ulong entry in _tables.L1)
            {
                cluster = _tables.Geometry.ClusterOf(new L1Entry(entry).L2Offset);
                if (entry != 0 && cluster >= run.First && cluster < run.End)
                {
                    return cluster;
                }
            }
        }

        return null;
    }

    private void Stopped()
    {
        BlockException damage = _state.Damage!;
        bool first = !_told;
        _told = true;
        lock (_state)
        {
            _state.ClustersCame();
            _state.PoolWaiters.Wake(damage);
            _state.SlotWaiters.Wake(damage);
            _state.FlushWaiters.Wake(damage);
        }

        TakeBacking()?.End(damage);
        if (first)
        {
            try
            {
                ImageHeader.MarkCorrupt(_file);
            }
            catch (BlockException)
            {
                // the host fails as well: that the image is stopped is what counts
            }

            _options.Damaged?.Invoke(damage);
        }
    }

    private BackingChange? TakeBacking()
    {
        lock (_state)
        {
            BackingChange? change = _state.Backing;
            _state.Backing = null;
            return change;
        }
    }

    // Nobody else uses the disk now.
    private void Finish()
    {
        if (_state.Damage is not null)
        {
            return;
        }

        _cycle.Run();
        _state.Freed.IsKept = false;
        while (_state.Freed.CanRelease)
        {
            Release();
        }

        List<ClusterRun> rest = [];
        while (_state.Pool.Take(int.MaxValue) is { Count: > 0 } run)
        {
            rest.Add(run);
        }

        try
        {
            if (_state.LostFlush is null)
            {
                _reservation.GiveBack(rest);
                _file.Flush();
            }
        }
        catch (BlockException)
        {
            // they stay leaks
        }
    }
}
