namespace Vmm.Storage.Qcow2;

/// <summary>
/// Plans how a range comes up into the top image from images below it. It goes the way of any allocation: a cluster is busy while it is
/// copied, so what a guest wrote first stays, and what it writes meanwhile comes after. Under the disk's lock; no I/O.
/// </summary>
internal sealed class PopulatePlan(ImageState state, Placement placement)
{
    private readonly Chain _chain = state.Chain;
    private readonly ImageTables _tables = state.Chain.Layers[0].Tables!;
    private readonly Qcow2Geometry _image = state.Chain.Layers[0].Tables!.Geometry;
    private readonly bool _hasZeroFlag = state.Chain.Layers[0].Header!.Version >= 3;

    /// <summary>The next range.</summary>
    /// <param name="operation">Its position moves on with what needs no copy.</param>
    /// <param name="part">With <see cref="PlanKind.Allocate"/>: copies a cluster, or parts of one.</param>
    /// <param name="canCopy">Memory to copy into is at hand.</param>
    /// <param name="load">With <see cref="PlanKind.Load"/>: what the node loads.</param>
    internal PlanKind Plan(GuestOperation operation, Part part, bool canCopy, out L2Slot? load)
    {
        load = null;
        for (int done = 0; done < ZeroPlan.Batch && operation.Position < operation.End; done++)
        {
            PlanKind kind = Next(operation, part, canCopy, out load);
            if (kind != PlanKind.Done)
            {
                return kind;
            }
        }

        return PlanKind.Done;
    }

    private PlanKind Next(GuestOperation operation, Part part, bool canCopy, out L2Slot? load)
    {
        ulong position = operation.Position;
        Extent extent = _chain.Resolve(position, operation.End);
        PlanKind known = placement.Look(operation, position, extent, PlanKind.Done, out load);
        if (known != PlanKind.Done)
        {
            return known;
        }

        ulong length = extent.Length;
        bool isBetween = extent.Layer > 0 && extent.Layer < operation.Scope.Bound;
        if (isBetween && extent.Kind == ExtentKind.Zero)
        {
            // Without an entry the image that stays below would be seen: nothing is needed where that reads as zeros as well.
            Extent below = _chain.Resolve(position, position + length, operation.Scope.Bound);
            known = placement.Look(operation, position, below, PlanKind.Done, out load);
            if (known != PlanKind.Done)
            {
                return known;
            }

            (length, isBetween) = (Math.Min(length, below.Length), below.Kind != ExtentKind.Zero);
        }

        if (!isBetween)
        {
            operation.Position = Math.Min(operation.End, position + length);
            return PlanKind.Done;
        }

        return Bring(operation, part, extent.Kind == ExtentKind.Zero, length, canCopy, out load);
    }

    // The bytes at the position, so many, are in an image between: zeros or not. The top's entry says nothing of them.
    private PlanKind Bring(GuestOperation operation, Part part, bool zeros, ulong length, bool canCopy, out L2Slot? load)
    {
        ulong position = operation.Position, cluster = _image.ClusterOf(position), first = cluster << _image.ClusterBits;
        PlanKind ready = placement.FindSlot(operation, cluster, out L2Slot slot);
        load = ready == PlanKind.Load ? slot : null;
        if (ready != PlanKind.Done)
        {
            return ready;
        }

        L2Entry entry = slot.Entry(_tables.IndexOf(cluster), _image.ExtendedL2);
        bool byParts = placement.KeepsParts(entry);
        ulong unit = byParts ? 1ul << _image.SubclusterBits : _image.ClusterSize;
        ulong clusterEnd = Math.Min(first + _image.ClusterSize, _chain.Layers[0].DiskSize); // the disk may end inside its last cluster
        ulong end = Math.Min(position + length, clusterEnd), start = position / unit * unit;
        if (zeros && _hasZeroFlag && (byParts || entry == default))
        {
            ulong zeroEnd = !byParts || end == clusterEnd ? clusterEnd : end / unit * unit;
            PlanKind asZeros = zeroEnd > start ? placement.Needs(operation, start, zeroEnd, out load) : PlanKind.NeedsFill;
            if (asZeros == PlanKind.Done)
            {
                SetZeros(slot, cluster, entry, start - first, zeroEnd - first);
                operation.Position = zeroEnd;
            }

            if (asZeros != PlanKind.NeedsFill)
            {
                return asZeros;
            }
        }

        ulong stop = Math.Min((end + unit - 1) / unit * unit, clusterEnd);
        return Copy(operation, part, slot, entry, (start, stop), canCopy);
    }

    private void SetZeros(L2Slot slot, ulong cluster, L2Entry entry, ulong from, ulong to)
    {
        ulong zeros = _image.ExtendedL2 ? (ulong)placement.PartsOf(from, to) << 32 : 0;
        placement.Change(slot, _tables.IndexOf(cluster),
            _image.ExtendedL2 ? entry with { Bitmap = entry.Bitmap | zeros } : L2Entry.PlainZero(_image));
    }

    private PlanKind Copy(GuestOperation operation, Part part, L2Slot slot, L2Entry entry, (ulong Start, ulong Stop) range, bool canCopy)
    {
        if (!canCopy)
        {
            return PlanKind.NeedsFill;
        }

        bool isNew = !(entry.IsCopied && entry.HostOffset != 0);
        ClusterRun place = isNew ? state.TakeClusters(1) : new ClusterRun(_image.ClusterOf(entry.HostOffset), 1);
        if (place.Count == 0)
        {
            state.PoolWaiters.Add(operation);
            return PlanKind.Parked;
        }

        ulong cluster = _image.ClusterOf(range.Start), first = cluster << _image.ClusterBits;
        part.Slot = slot;
        part.Plan = new WritePlan
        {
            Host = (place.First << _image.ClusterBits) + (range.Start - first),
            Start = range.Start,
            PayloadEnd = range.Stop,
            Stop = range.Stop,
            Clusters = new ClusterRun(cluster, 1),
            IsNew = isNew,
            Parts = _image.ExtendedL2 ? placement.PartsOf(range.Start - first, range.Stop - first) : 0,
        };
        placement.BecomeBusy(part);
        return PlanKind.Allocate;
    }
}
