namespace Vmm.Storage.Qcow2;

/// <summary>
/// What the nodes of a disk and the thread of its metadata share. Its monitor is the disk's lock: everything in it, and in the chain, the
/// cache and the tables, is used under it, and it is never held across I/O.
/// </summary>
internal sealed class ImageState
{
    private readonly List<(int Index, long Generation)> _dirtyL1 = [];

    internal ImageState(Chain chain) => Chain = chain;

    /// <summary>The images.</summary>
    internal Chain Chain { get; }

    /// <summary>Clusters for new payload and tables.</summary>
    internal ClusterPool Pool { get; } = new();

    /// <summary>Clusters on their way back.</summary>
    internal FreedClusters Freed { get; } = new();

    /// <summary>Counts the cycles of the metadata: a change belongs to the present one.</summary>
    internal long Generation { get; set; }

    /// <summary>Operations that wait for clusters; for a slot; for the cycle after the present one.</summary>
    internal OperationList PoolWaiters, SlotWaiters, FlushWaiters;

    /// <summary>The pool has to be filled.</summary>
    internal bool WantsClusters { get; private set; }

    /// <summary>Changed slices should be written soon.</summary>
    internal bool WantsCycle { get; private set; }

    /// <summary>A cycle is at work: what it took is not durable yet.</summary>
    internal bool IsCycling { get; set; }

    /// <summary>Work for the metadata's thread that somebody waits for; null is none.</summary>
    internal MetadataChore? Chore { get; set; }

    /// <summary>The thread of the metadata is to end.</summary>
    internal bool IsClosing { get; set; }

    /// <summary>Why the image was stopped; null when it was not.</summary>
    internal BlockException? Damage { get; private set; }

    /// <summary>
    /// The flush that failed; null when none did. The host may have dropped what it was for, and would answer the next one as if it had
    /// not (fsync(2)): nothing is promised any more, and no table is written that may name lost payload.
    /// </summary>
    internal BlockException? LostFlush { get; private set; }

    /// <summary>Another name of the backing file that is to be written; null: none.</summary>
    internal BackingChange? Backing { get; set; }

    /// <summary>L1 entries that are not in the file yet.</summary>
    internal List<(int Index, long Generation)> DirtyL1 => _dirtyL1;

    /// <summary>Fewer clusters than this in the pool: more are fetched.</summary>
    internal int LowWater { get; set; } = 8;

    /// <summary>Nothing in memory differs from the file, and no cycle is at work.</summary>
    internal bool IsClean => Chain.Cache.Dirty == 0 && _dirtyL1.Count == 0 && !Freed.AnyFresh && !IsCycling;

    /// <summary>Asks the metadata's thread for clusters.</summary>
    internal void AskForClusters()
    {
        if (!WantsClusters)
        {
            WantsClusters = true;
            Monitor.Pulse(this);
        }
    }

    /// <summary>Asks it for a cycle.</summary>
    internal void AskForCycle()
    {
        if (!WantsCycle)
        {
            WantsCycle = true;
            Monitor.Pulse(this);
        }
    }

    /// <summary>Asks it to write another name of the backing file; waits for the end of that.</summary>
    /// <exception cref="BlockException">It failed.</exception>
    internal void ChangeBacking(string? name, string? format)
    {
        BackingChange change = new(name, format);
        lock (this)
        {
            Backing = Backing is null ? change : throw new InvalidOperationException("The name of the backing file is being changed.");
            Monitor.Pulse(this);
        }

        change.Wait();
    }

    /// <summary>The pool was filled, or could not be.</summary>
    internal void ClustersCame() => WantsClusters = false;

    /// <summary>A cycle begins; the generation that it makes durable.</summary>
    internal long BeginCycle()
    {
        WantsCycle = false;
        IsCycling = true;
        return Generation++;
    }

    /// <summary>Stops the image: everything that waits or comes fails. Damage is not written over with more.</summary>
    internal void Stop(BlockException damage)
    {
        Damage ??= damage;
        Monitor.Pulse(this);
    }

    /// <summary>
    /// A flush of the file is in flight, a node's or the metadata's. There is one at a time: the host tells one of several that something
    /// was lost, and none may begin before everybody knows.
    /// </summary>
    internal bool IsFlushInFlight { get; private set; }

    /// <summary>A flush of the file begins; none is in flight.</summary>
    internal void FlushBegins() => IsFlushInFlight = true;

    /// <summary>It ended.</summary>
    internal void FlushEnded(BlockException? failure)
    {
        IsFlushInFlight = false;
        LostFlush ??= failure;
        Monitor.Pulse(this);
    }

    /// <summary>What the file says cannot be known any more: as after a flush that failed nothing is promised.</summary>
    internal void Distrust(BlockException failure) => LostFlush ??= failure;

    /// <summary>An operation is over.</summary>
    internal void Leave(int period)
    {
        if (Freed.Exit(period))
        {
            Monitor.Pulse(this);
        }
    }

    /// <summary>Finds a slot in memory, or a place for it.</summary>
    /// <returns>
    /// Done: it is loaded. Load: the operation's node loads it, and the operation waits for that. Parked: the operation waits.
    /// Failed: there will be no place for it.
    /// </returns>
    internal PlanKind FindLoaded(GuestOperation operation, ulong key, out L2Slot slot)
    {
        slot = Chain.Cache.Find(key)!;
        if (slot is { IsLoaded: true })
        {
            return PlanKind.Done;
        }

        bool isNew = slot is null;
        slot ??= Chain.Cache.TryAdd(key)!;
        if (slot is not null)
        {
            slot.Waiters.Add(operation);
            return isNew ? PlanKind.Load : PlanKind.Parked;
        }

        if (Damage is not null)
        {
            operation.Fail(DiskStatus.IoError); // what fills the cache is never written
            return PlanKind.Failed;
        }

        SlotWaiters.Add(operation);
        AskForCycle();
        return PlanKind.Parked;
    }

    /// <summary>Takes clusters, and sees to it that there will be more. Empty: there are none now.</summary>
    internal ClusterRun TakeClusters(int most)
    {
        ClusterRun run = Pool.Take(most);
        if (Pool.Count < LowWater)
        {
            AskForClusters();
        }

        return run;
    }
}
