using Vmm.Interop;

namespace Vmm.Storage.Qcow2;

/// <summary>
/// Takes operations through their ranges: asks where the next bytes are, begins the part that moves them, goes on when it waited for
/// something. The node's thread.
/// </summary>
internal sealed class OperationSteps : IDisposable
{
    private readonly Qcow2Node _node;
    private readonly Qcow2Disk _disk;
    private readonly ImageState _state;
    private readonly Chain _chain;
    private readonly Placement? _placement;
    private readonly ZeroPlan? _zeroPlan;
    private readonly PopulatePlan? _populatePlan;
    private readonly ClusterDecoder _decoder = new();
    private readonly AllocationSteps _allocations;
    private readonly FlushSteps _flushes;

    internal OperationSteps(Qcow2Node node, Qcow2Disk disk)
    {
        _node = node;
        _disk = disk;
        _state = disk.State;
        _chain = disk.State.Chain;
        (_placement, _zeroPlan, _populatePlan) = (disk.Placement, disk.ZeroPlan, disk.PopulatePlan);
        _allocations = new AllocationSteps(node, disk);
        _flushes = new FlushSteps(node, disk);
    }

    /// <summary>Goes on with an operation; false while it waits for something.</summary>
    internal bool Advance(GuestOperation operation)
    {
        if (operation.IsFlushing)
        {
            (operation.IsFlushing, operation.IsDurable) = (false, true);
            return true;
        }

        while (operation.Position < operation.End && operation.Status == DiskStatus.Ok)
        {
            if (_node.Parts.TryTake(operation) is not { } part)
            {
                return false;
            }

            bool goesOn = operation.Kind switch
            {
                BlockKind.Read => StepRead(operation, part),
                BlockKind.Write when operation.Scope.Bound > 0 => StepPopulate(operation, part),
                BlockKind.Write => StepWrite(operation, part, operation.End),
                _ => StepZero(operation, part),
            };
            if (!goesOn)
            {
                return false;
            }
        }

        operation.IsAllBegun = true;
        return true;
    }

    /// <summary>Makes an operation durable that asks for it, when everything else of it is over. False: it is over.</summary>
    internal bool BeginFlush(GuestOperation operation) => _flushes.Begin(operation);

    /// <summary>A part is over.</summary>
    internal void PartEnded(Part part, DiskStatus status)
    {
        GuestOperation? operation = part.Operation;
        switch (part.Kind)
        {
            case PartKind.Load:
                if (status == DiskStatus.Ok && _disk.Options.HearsWrites?.IsWhole(part.TablesBefore) == false
                    && L2Cache.LayerOf(part.Slot!.Key) > 0)
                {
                    Load(part, part.Slot); // its owner wrote meanwhile: it may be half old and half new
                    return;
                }

                SliceEnded(part, status);
                Return(part);
                return;
            case PartKind.Compressed:
                Decoded(part, status);
                return;
            case PartKind.Allocate:
                _allocations.End(part, status);
                break;
            case PartKind.Flush:
                _flushes.End(operation!, status);
                break;
            default:
                break;
        }

        if (status != DiskStatus.Ok)
        {
            operation!.Fail(status);
        }

        operation!.Parts--;
        Return(part);
        _node.FinishIfOver(operation);
    }

    /// <summary>What an allocation copies was read, or could not be.</summary>
    internal void FillEnded(Part part, DiskStatus status)
    {
        if (_allocations.FillEnded(part, status) is { } failed)
        {
            PartEnded(part, failed);
        }
    }

    public void Dispose()
    {
        _decoder.Dispose();
        _allocations.Dispose();
    }

    private bool StepRead(GuestOperation operation, Part part)
    {
        Extent extent;
        PlanKind found = PlanKind.Done;
        L2Slot? load = null;
        lock (_state)
        {
            Enter(operation);
            extent = _chain.Resolve(operation.Position, operation.End, operation.Scope.From);
            if (extent.Kind == ExtentKind.Missing)
            {
                found = _state.FindLoaded(operation, extent.Place, out load);
            }
        }

        switch (extent.Kind)
        {
            case ExtentKind.Missing:
                return Wait(part, found, load);
            case not ExtentKind.Damaged when operation.Scope.Maps:
                (_node.Mapped, operation.Position) = (extent, operation.End);
                break;
            case ExtentKind.Data:
                Transfer(operation, part, extent.Layer, extent.Place, extent.Length);
                return true;
            case ExtentKind.Compressed:
                return StepCompressed(operation, part, extent);
            case ExtentKind.Zero:
                operation.Memory.Clear(extent.Length);
                operation.Position += extent.Length;
                break;
            default:
                _disk.Damaged(extent.Layer, $"an entry that maps byte {operation.Position} of the disk is 0x{extent.Place:x16}");
                operation.Fail(DiskStatus.IoError);
                break;
        }

        Return(part);
        return true;
    }

    private bool StepWrite(GuestOperation operation, Part part, ulong end)
    {
        PlanKind plan;
        L2Slot? load;
        lock (_state)
        {
            Enter(operation);
            plan = _placement!.PlanWrite(operation, end, part, _node.Parts.CanCopy, out load);
        }

        switch (plan)
        {
            case PlanKind.InPlace:
                Transfer(operation, part, 0, part.Plan.Host, part.Plan.PayloadEnd - operation.Position);
                return true;
            case PlanKind.Allocate:
                part.Begin(operation, PartKind.Allocate, layer: 0);
                if (_allocations.Begin(operation, part) is { } failed)
                {
                    PartEnded(part, failed);
                }

                return true;
            default:
                return Wait(part, plan, load, operation);
        }
    }

    private bool StepZero(GuestOperation operation, Part part)
    {
        PlanKind plan;
        ulong end;
        L2Slot? load;
        lock (_state)
        {
            Enter(operation);
            plan = _zeroPlan!.Plan(operation, out end, out load);
        }

        if (plan == PlanKind.ZerosAsData)
        {
            return StepWrite(operation, part, end);
        }

        return plan == PlanKind.Done ? EndTurn(operation, part) : Wait(part, plan, load);
    }

    private bool StepPopulate(GuestOperation operation, Part part)
    {
        PlanKind plan;
        L2Slot? load;
        lock (_state)
        {
            Enter(operation);
            plan = _populatePlan!.Plan(operation, part, _node.Parts.CanCopy, out load);
        }

        if (plan != PlanKind.Allocate)
        {
            return plan == PlanKind.Done ? EndTurn(operation, part) : Wait(part, plan, load, operation);
        }

        part.Begin(operation, PartKind.Allocate, layer: 0);
        _node.Populated += part.Plan.Stop - part.Plan.Start;
        if (_allocations.BeginCopy(operation, part) is { } failed)
        {
            PartEnded(part, failed);
        }

        return true;
    }

    // What tables alone did is done: true at the end of the range. A long one goes on later, and others have their turn.
    private bool EndTurn(GuestOperation operation, Part part)
    {
        Return(part);
        if (operation.Position >= operation.End)
        {
            return true;
        }

        lock (_state)
        {
            _node.Wake(operation);
        }

        return false;
    }

    // A plan that cannot go on now. True when the operation failed, and so goes on to its end.
    private bool Wait(Part part, PlanKind plan, L2Slot? load, GuestOperation? operation = null)
    {
        if (plan == PlanKind.Load)
        {
            Load(part, load!);
            return false;
        }

        if (plan == PlanKind.NeedsFill)
        {
            _node.Parts.FillWaiters.Add(operation!);
        }

        Return(part);
        return plan is PlanKind.Failed;
    }

    // Under the lock: what the operation may find in tables is not handed out again before it is over.
    private void Enter(GuestOperation operation)
    {
        if (!operation.HasEntered && operation.FillOf is null)
        {
            operation.HasEntered = true;
            operation.Period = _state.Freed.Enter();
        }
    }

    private void Transfer(GuestOperation operation, Part part, int layer, ulong place, ulong length)
    {
        part.Begin(operation, PartKind.Transfer, layer);
        part.Request.Prepare(operation.Kind == BlockKind.Read ? BlockKind.Read : BlockKind.Write, place, (uint)length);
        if (operation.Kind == BlockKind.WriteZeroes)
        {
            Span<IoVector> zeros = part.Vectors(_allocations.ZeroVectors(length));
            part.Request.SetData(zeros[.._allocations.FillWithZeros(zeros, length)]);
        }
        else if (operation.Memory.IsWhole(length, out nint address, out int count))
        {
            part.Request.SetData(HostSpan.Vectors(address, count));
            operation.Memory.Skip(length);
        }
        else
        {
            Span<IoVector> vectors = part.Vectors(operation.Memory.CountFor(length));
            part.Request.SetData(vectors[..operation.Memory.Take(length, vectors)]);
        }

        operation.Position += length;
        _node.Send(part);
    }

    private void Load(Part part, L2Slot slot)
    {
        int layer = L2Cache.LayerOf(slot.Key);
        ImageTables tables = _chain.Layers[layer].Tables!;
        ulong offset;
        lock (_state)
        {
            offset = tables.OffsetOf(slot.Key);
        }

        part.Begin(null, PartKind.Load, layer);
        part.Slot = slot;
        part.TablesBefore = _disk.Options.HearsWrites?.Now ?? 0;
        part.Request.Prepare(BlockKind.Read, offset, (uint)tables.SliceBytes);
        part.Request.SetData(slot.VectorOf(tables.SliceBytes));
        _node.Send(part);
    }

    private void SliceEnded(Part part, DiskStatus status)
    {
        L2Slot slot = part.Slot!;
        lock (_state)
        {
            BlockException? failure = null;
            if (status == DiskStatus.Ok)
            {
                slot.IsLoaded = true;
            }
            else
            {
                failure = new BlockException(BlockErrorKind.Io, "a table cannot be read") { Status = status };
                _chain.Cache.Forget(slot);
            }

            slot.Waiters.Wake(failure);
            _state.SlotWaiters.Wake();
        }
    }

    private bool StepCompressed(GuestOperation operation, Part part, Extent extent)
    {
        Qcow2Header header = _chain.Layers[extent.Layer].Header!;
        if (_decoder.TryFind(extent.Layer, extent.Place, out ReadOnlySpan<byte> plain))
        {
            operation.Memory.CopyFrom(plain.Slice((int)header.Geometry.InCluster(operation.Position), (int)extent.Length));
            operation.Position += extent.Length;
            Return(part);
            return true;
        }

        if (_decoder.IsBusy)
        {
            _decoder.Waiters.Add(operation);
            Return(part);
            return false;
        }

        (ulong offset, uint length) = new L2Entry(extent.Place).CompressedRange(header.Geometry);
        part.Begin(operation, PartKind.Compressed, extent.Layer);
        part.Request.Prepare(BlockKind.Read, offset, length);
        part.Request.SetData(_decoder.Begin(extent.Layer, extent.Place, length));
        _node.Send(part);
        return false;
    }

    private void Decoded(Part part, DiskStatus status)
    {
        GuestOperation operation = part.Operation!;
        uint length = part.Request.Length;
        if (!_decoder.End(status == DiskStatus.Ok, _chain.Layers[part.Layer].Header!, length))
        {
            if (status == DiskStatus.Ok)
            {
                _disk.Damaged(part.Layer, $"the compressed cluster of byte {operation.Position} of the disk cannot be decoded");
            }

            operation.Fail(status == DiskStatus.Ok ? DiskStatus.IoError : status);
        }

        operation.Parts--;
        Return(part);
        _node.Advance(operation);
        while (!_decoder.IsBusy && _decoder.Waiters.Take() is { } next)
        {
            _node.Advance(next);
        }
    }

    private void Return(Part part) => _node.Advance(_node.Parts.Return(part));
}
