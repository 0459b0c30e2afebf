namespace Vmm.Storage.Qcow2;

/// <summary>
/// Decides where writes to the top image go and changes its tables in memory. Under the disk's lock; no I/O. A cluster whose place is being
/// decided is busy: other writes of it wait for the end of that.
/// </summary>
internal sealed class Placement(ImageState state)
{
    private readonly Chain _chain = state.Chain;
    private readonly ImageTables _tables = state.Chain.Layers[0].Tables!;
    private readonly Qcow2Geometry _image = state.Chain.Layers[0].Tables!.Geometry;
    private readonly Dictionary<ulong, Part> _busy = [];

    /// <summary>The next range of a write, from the operation's position to at most <paramref name="end"/>.</summary>
    /// <param name="operation">The write.</param>
    /// <param name="end">Where it ends.</param>
    /// <param name="part">What would do it: clusters become busy with it.</param>
    /// <param name="canCopy">Memory to copy into is at hand.</param>
    /// <param name="load">With <see cref="PlanKind.Load"/>: what the node loads.</param>
    internal PlanKind PlanWrite(GuestOperation operation, ulong end, Part part, bool canCopy, out L2Slot? load)
    {
        ulong cluster = _image.ClusterOf(operation.Position);
        PlanKind ready = FindSlot(operation, cluster, out L2Slot slot);
        load = ready == PlanKind.Load ? slot : null;
        if (ready != PlanKind.Done)
        {
            return ready;
        }

        L2Entry entry = slot.Entry(_tables.IndexOf(cluster), _image.ExtendedL2);
        ClusterKind kind = entry.KindIn(_image);
        bool isInFile = kind == ClusterKind.Compressed || entry.HostOffset < _chain.Layers[0].File.Length;
        if (kind == ClusterKind.Invalid || !isInFile)
        {
            return Damaged(operation, $"entry of cluster {cluster} is 0x{entry.Bits:x16}");
        }

        part.Slot = slot;
        if (kind == ClusterKind.Data && entry.IsCopied && InPlace(ref part.Plan, slot, entry, operation.Position, end))
        {
            return PlanKind.InPlace;
        }

        return Allocate(operation, end, part, entry, canCopy, out load);
    }

    /// <summary>The payload of an allocation is in the file: the tables name it from now on.</summary>
    internal void Publish(Part part)
    {
        ref WritePlan plan = ref part.Plan;
        L2Slot slot = part.Slot!;
        ulong host = _image.ClusterOf(plan.Host);
        for (int i = 0; i < plan.Clusters.Count; i++)
        {
            ulong cluster = plan.Clusters.First + (uint)i;
            int index = _tables.IndexOf(cluster);
            L2Entry old = slot.Entry(index, _image.ExtendedL2);
            ulong place = (host + (uint)i) << _image.ClusterBits;
            Change(slot, index, !_image.ExtendedL2 ? L2Entry.Data(_image, place)
                : L2Entry.Parts(place, (KeepsParts(old) ? old.Allocated : 0) | plan.Parts, KeepsParts(old) ? old.Zeros & ~plan.Parts : 0));
            if (plan.IsNew)
            {
                Free(old);
            }
        }

        End(part);
    }

    /// <summary>The payload of an allocation could not be written: nothing was changed.</summary>
    internal void Abandon(Part part)
    {
        if (part.Plan.IsNew)
        {
            state.Freed.AddUnused(new ClusterRun(_image.ClusterOf(part.Plan.Host), part.Plan.Clusters.Count));
        }

        End(part);
    }

    /// <summary>Finds the loaded slot of a cluster's entry, with a new table where there is none.</summary>
    /// <returns>Done, or why the operation has to wait.</returns>
    internal PlanKind FindSlot(GuestOperation operation, ulong cluster, out L2Slot slot)
    {
        slot = null!;
        if (state.Damage is not null)
        {
            operation.Fail(DiskStatus.IoError);
            return PlanKind.Failed;
        }

        if (_busy.TryGetValue(cluster, out Part? busy))
        {
            busy.Waiters.Add(operation);
            return PlanKind.Parked;
        }

        L1Entry table = _tables.TableOf(cluster);
        if (table.Bits != 0 && (!table.IsCopied || table.L2Offset == 0 || !table.IsValidIn(_image)))
        {
            return Damaged(operation, $"entry {_tables.L1IndexOf(cluster)} of its L1 table is 0x{table.Bits:x16}");
        }

        return table.Bits == 0 ? AddTable(operation, cluster, out slot) : state.FindLoaded(operation, _tables.KeyOf(cluster), out slot);
    }

    /// <summary>Changes an entry of the top image.</summary>
    internal void Change(L2Slot slot, int index, L2Entry entry)
    {
        slot.Set(index, _image.ExtendedL2, entry);
        _chain.Cache.MarkDirty(slot, state.Generation);
        if (_chain.Cache.IsCrowded)
        {
            state.AskForCycle();
        }
    }

    /// <summary>What an entry named, and names no longer, comes back once that is durable.</summary>
    internal void Free(L2Entry entry)
    {
        ClusterKind kind = entry.KindIn(_image);
        if (kind == ClusterKind.Compressed)
        {
            (ulong offset, uint length) = entry.CompressedRange(_image);
            ulong first = _image.ClusterOf(offset), last = _image.ClusterOf(offset + length - 1);
            state.Freed.Add(new ClusterRun(first, (int)(last - first + 1)), state.Generation);
        }
        else if (kind is ClusterKind.Data or ClusterKind.Zero && entry.HostOffset != 0)
        {
            state.Freed.Add(new ClusterRun(_image.ClusterOf(entry.HostOffset), 1), state.Generation);
        }
    }

    /// <summary>Stops the image.</summary>
    internal PlanKind Damaged(GuestOperation operation, string what)
    {
        state.Stop(ImageHeader.Damage(_chain.Layers[0].File, what));
        operation.Fail(DiskStatus.IoError);
        return PlanKind.Failed;
    }

    /// <summary>Parts of the old entry stay only where its place stays, or where it says nothing but zeros.</summary>
    internal bool KeepsParts(L2Entry old) => _image.ExtendedL2 && old.KindIn(_image) != ClusterKind.Compressed
        && (old.IsCopied || old.HostOffset == 0);

    private void End(Part part)
    {
        for (int i = 0; i < part.Plan.Clusters.Count; i++)
        {
            _busy.Remove(part.Plan.Clusters.First + (uint)i);
        }

        part.Slot!.Pins--;
        part.Waiters.Wake();
    }

    // An L2 table is a cluster that reads as zeros until its slices are written.
    private PlanKind AddTable(GuestOperation operation, ulong cluster, out L2Slot slot)
    {
        slot = null!;
        ClusterRun run = state.TakeClusters(1);
        if (run.Count == 0)
        {
            state.PoolWaiters.Add(operation);
            return PlanKind.Parked;
        }

        if (_chain.Cache.TryAdd(_tables.KeyOf(cluster)) is not { } added)
        {
            state.Pool.Add(run);
            state.SlotWaiters.Add(operation);
            state.AskForCycle();
            return PlanKind.Parked;
        }

        slot = added;
        slot.Bytes.Clear();
        slot.IsLoaded = true;
        int index = _tables.L1IndexOf(cluster);
        _tables.SetTable(index, run.First << _image.ClusterBits);
        state.DirtyL1.Add((index, state.Generation));
        _chain.Cache.MarkDirty(slot, state.Generation);
        return PlanKind.Done;
    }

    // True when the bytes at the position have a place of their own.
    private bool InPlace(ref WritePlan plan, L2Slot slot, L2Entry entry, ulong position, ulong end)
    {
        uint inCluster = _image.InCluster(position);
        ulong start = position - inCluster, stop = start + _image.ClusterSize, host = entry.HostOffset;
        if (_image.ExtendedL2)
        {
            int part = (int)(inCluster >> _image.SubclusterBits);
            int run = System.Numerics.BitOperations.TrailingZeroCount(~((ulong)entry.Allocated >> part));
            stop = Math.Min(stop, start + ((ulong)(part + run) << _image.SubclusterBits));
        }
        else
        {
            ulong cluster = _image.ClusterOf(position);
            while (stop < end && ++cluster < _tables.SliceEnd(cluster - 1) && !_busy.ContainsKey(cluster))
            {
                L2Entry next = slot.Entry(_tables.IndexOf(cluster), extended: false);
                if (next.KindIn(_image) != ClusterKind.Data || !next.IsCopied || next.HostOffset != host + (stop - start))
                {
                    break;
                }

                stop += _image.ClusterSize;
            }
        }

        plan = new WritePlan { Host = host + inCluster, Start = position, PayloadEnd = Math.Min(end, stop), Stop = Math.Min(end, stop) };
        return stop > position;
    }

    private PlanKind Allocate(GuestOperation operation, ulong end, Part part, L2Entry entry, bool canCopy, out L2Slot? load)
    {
        load = null;
        ulong position = operation.Position, cluster = _image.ClusterOf(position), first = cluster << _image.ClusterBits;
        bool isNew = !(entry.IsCopied && entry.HostOffset != 0);
        ClusterRun places = isNew ? state.TakeClusters(FreshClusters(part.Slot!, cluster, end)) : new ClusterRun(0, 1);
        if (places.Count == 0)
        {
            state.PoolWaiters.Add(operation);
            return PlanKind.Parked;
        }

        // With extended entries only the parts that are written get payload, unless the old place cannot be kept.
        ulong unit = _image.ExtendedL2 && KeepsParts(entry) ? 1ul << _image.SubclusterBits : _image.ClusterSize;
        ulong payloadEnd = Math.Min(end, first + ((ulong)places.Count << _image.ClusterBits));
        ulong start = position / unit * unit, stop = (payloadEnd + unit - 1) / unit * unit;
        stop = Math.Min(stop, Math.Max(payloadEnd, _chain.Layers[0].DiskSize)); // the disk may end inside its last cluster
        PlanKind head = isNew ? Needs(operation, start, position, out load) : position > start ? PlanKind.NeedsFill : PlanKind.Done;
        PlanKind tail = head is not (PlanKind.Done or PlanKind.NeedsFill) ? head
            : isNew ? Needs(operation, payloadEnd, stop, out load) : stop > payloadEnd ? PlanKind.NeedsFill : PlanKind.Done;
        bool isKnown = tail is PlanKind.Done or PlanKind.NeedsFill;
        bool copies = head == PlanKind.NeedsFill || tail == PlanKind.NeedsFill;
        if (!isKnown || (copies && !canCopy))
        {
            GiveBack(places, isNew);
            return isKnown ? PlanKind.NeedsFill : tail;
        }

        ulong from = head == PlanKind.NeedsFill ? start : position;
        ulong host = isNew ? places.First << _image.ClusterBits : entry.HostOffset;
        part.Plan = new WritePlan
        {
            Host = host + (from - first),
            Start = from,
            PayloadEnd = payloadEnd,
            Stop = tail == PlanKind.NeedsFill ? stop : payloadEnd,
            CopiesHead = head == PlanKind.NeedsFill,
            CopiesTail = tail == PlanKind.NeedsFill,
            Clusters = new ClusterRun(cluster, places.Count),
            IsNew = isNew,
            Parts = _image.ExtendedL2 ? PartsOf(start - first, stop - first) : 0,
        };
        BecomeBusy(part);
        return PlanKind.Allocate;
    }

    private void GiveBack(ClusterRun places, bool isNew)
    {
        if (isNew)
        {
            state.Pool.Add(places);
        }
    }

    /// <summary>The clusters of a part's plan are its own until the end of that.</summary>
    internal void BecomeBusy(Part part)
    {
        part.Slot!.Pins++;
        for (int i = 0; i < part.Plan.Clusters.Count; i++)
        {
            _busy.Add(part.Plan.Clusters.First + (uint)i, part);
        }
    }

    // Clusters side by side, from this one on, that have no place and are covered by a write; with extended entries one at a time.
    private int FreshClusters(L2Slot slot, ulong cluster, ulong end)
    {
        int count = 1;
        ulong limit = Math.Min(_tables.SliceEnd(cluster), _image.ClustersFor(end));
        for (ulong next = cluster + 1; !_image.ExtendedL2 && next < limit && !_busy.ContainsKey(next); next++)
        {
            L2Entry entry = slot.Entry(_tables.IndexOf(next), extended: false);
            if (entry.KindIn(_image) is not (ClusterKind.Unallocated or ClusterKind.Zero) || entry.HostOffset != 0)
            {
                break;
            }

            count++;
        }

        return count;
    }

    /// <summary>
    /// What an allocation has to copy of a range beside its payload: nothing (Done) when it reads as zeros, as a new cluster does.
    /// </summary>
    internal PlanKind Needs(GuestOperation operation, ulong from, ulong to, out L2Slot? load)
    {
        load = null;
        return from >= to || _chain.ReadsAsZeros(from, to, out Extent other) ? PlanKind.Done
            : Look(operation, from, other, PlanKind.NeedsFill, out load);
    }

    /// <summary>What is to be done first when a place is not known; else <paramref name="otherwise"/>.</summary>
    internal PlanKind Look(GuestOperation operation, ulong at, Extent extent, PlanKind otherwise, out L2Slot? load)
    {
        load = null;
        switch (extent.Kind)
        {
            case ExtentKind.Missing:
                PlanKind found = state.FindLoaded(operation, extent.Place, out L2Slot slot);
                load = found == PlanKind.Load ? slot : null;
                return found;
            case ExtentKind.Damaged:
                return Damaged(operation, $"an entry that maps byte {at} is 0x{extent.Place:x16}");
            default:
                return otherwise;
        }
    }

    /// <summary>The parts of a cluster that a range of it touches.</summary>
    internal uint PartsOf(ulong from, ulong to)
    {
        int first = (int)(from >> _image.SubclusterBits);
        int last = (int)((to + (1ul << _image.SubclusterBits) - 1) >> _image.SubclusterBits);
        return (uint)(((1ul << last) - 1) & ~((1ul << first) - 1));
    }
}
