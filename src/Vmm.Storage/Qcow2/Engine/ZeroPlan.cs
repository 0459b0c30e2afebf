namespace Vmm.Storage.Qcow2;

/// <summary>Plans discards and written zeros: most of them change tables only. Under the disk's lock; no I/O.</summary>
internal sealed class ZeroPlan(ImageState state, Placement placement)
{
    /// <summary>Clusters that are done before others have their turn.</summary>
    internal const int Batch = 1024;

    private readonly Chain _chain = state.Chain;
    private readonly ImageTables _tables = state.Chain.Layers[0].Tables!;
    private readonly Qcow2Geometry _image = state.Chain.Layers[0].Tables!.Geometry;
    private readonly bool _hasZeroFlag = state.Chain.Layers[0].Header!.Version >= 3;

    /// <summary>The next range of a discard or of written zeros.</summary>
    /// <param name="operation">It; its position moves on with what the tables alone did.</param>
    /// <param name="end">With <see cref="PlanKind.ZerosAsData"/>: up to where zeros are written as data.</param>
    /// <param name="load">With <see cref="PlanKind.Load"/>: what the node loads.</param>
    internal PlanKind Plan(GuestOperation operation, out ulong end, out L2Slot? load)
    {
        for (int done = 0; done < Batch && operation.Position < operation.End; done++)
        {
            PlanKind kind = Next(operation, out end, out load);
            if (kind != PlanKind.Done)
            {
                return kind;
            }
        }

        (end, load) = (operation.Position, null);
        return PlanKind.Done;
    }

    private PlanKind Next(GuestOperation operation, out ulong end, out L2Slot? load)
    {
        ulong position = operation.Position, cluster = _image.ClusterOf(position);
        ulong clusterEnd = (cluster + 1) << _image.ClusterBits;
        load = null;
        end = Math.Min(operation.End, clusterEnd);
        bool isWhole = _image.InCluster(position) == 0 && (end == clusterEnd || end == _chain.Layers[0].DiskSize);
        if (!isWhole && operation.Kind == BlockKind.Discard)
        {
            operation.Position = end;
            return PlanKind.Done; // a hint for less than a cluster
        }

        Extent extent = _chain.Resolve(position, operation.End);
        switch (extent.Kind)
        {
            case ExtentKind.Zero:
                operation.Position = Math.Min(operation.End, position + extent.Length);
                return PlanKind.Done;
            case ExtentKind.Missing or ExtentKind.Damaged:
                return placement.Look(operation, position, extent, PlanKind.Failed, out load);
            default:
                return isWhole ? Clear(operation, cluster, end, out load) : PlanKind.ZerosAsData;
        }
    }

    private PlanKind Clear(GuestOperation operation, ulong cluster, ulong end, out L2Slot? load)
    {
        bool becomesUnallocated = operation.Kind == BlockKind.Discard && _chain.Layers.Length == 1;
        if (!becomesUnallocated && !_hasZeroFlag)
        {
            load = null;
            operation.Position = operation.Kind == BlockKind.Discard ? end : operation.Position;
            return operation.Kind == BlockKind.Discard ? PlanKind.Done : PlanKind.ZerosAsData;
        }

        PlanKind ready = placement.FindSlot(operation, cluster, out L2Slot slot);
        load = ready == PlanKind.Load ? slot : null;
        if (ready != PlanKind.Done)
        {
            return ready;
        }

        int index = _tables.IndexOf(cluster);
        L2Entry old = slot.Entry(index, _image.ExtendedL2);
        bool keepsPlace = operation.Kind == BlockKind.WriteZeroes && (operation.Flags & BlockFlags.MayUnmap) == 0
            && old.KindIn(_image) == ClusterKind.Data && old.IsCopied;
        placement.Change(slot, index, becomesUnallocated ? default
            : !keepsPlace ? L2Entry.PlainZero(_image)
            : _image.ExtendedL2 ? L2Entry.Parts(old.HostOffset, 0, uint.MaxValue)
            : new L2Entry(old.Bits | 1)); // the flag "all zeros" beside the place
        if (!keepsPlace)
        {
            placement.Free(old);
        }

        operation.Position = end;
        return PlanKind.Done;
    }
}
