using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage;

/// <summary>
/// A mirrored disk as one loop reaches it. Reads go to the source as they are. What writes takes its range first; then it goes to the
/// source as it is, or, where the target has the range already, piece by piece to both: from a copy of its data, since the guest may
/// change its memory meanwhile, and the two disks must not differ. The source's status is the request's.
/// </summary>
internal sealed class MirrorNode : IBlockNode, IBlockOwner, IBlockLeaf
{
    private readonly DiskMirror _mirror;
    private readonly IoLoop _loop;
    private readonly MirrorPair _pair;
    private readonly int _depth;
    private readonly MirrorSlot[] _slots;
    private readonly int[] _free;
    private readonly EventFd _bell = new(); // rung when a slot that waits may go on
    private readonly Doorbell _doorbell;
    private readonly MirrorBuffers _buffers;
    private int _freeCount, _waiting;
    private TaskCompletionSource? _closed;
    private bool _disposed;

    internal MirrorNode(DiskMirror mirror, IoLoop loop, MirrorPair pair, int depth)
    {
        (_mirror, _loop, _pair, _depth) = (mirror, loop, pair, depth);
        _slots = new MirrorSlot[depth];
        _free = new int[depth];
        _buffers = new MirrorBuffers(depth);
        for (int i = 0; i < depth; i++)
        {
            _slots[i] = new MirrorSlot(this, i);
            _free[i] = i;
            loop.Add(_slots[i].Source);
            loop.Add(_slots[i].Target);
        }

        _freeCount = depth;
        _doorbell = loop.Watch(_bell, GoOn);
        mirror.Ranges.Reserve(depth);
    }

    public BlockGeometry Geometry => _mirror.Geometry;

    public int InFlight { get; private set; }

    public bool WritesZeroesAsData(bool mayUnmap) => _pair.WritesZeroesAsData(mayUnmap);

    public void Submit(BlockRequest request)
    {
        if (InFlight == _depth || _closed is not null)
        {
            throw new InvalidOperationException(_closed is null ? "More requests than the node's depth." : "The node is being closed.");
        }

        InFlight++;
        bool isFlush = request.Kind == BlockKind.Flush;
        if (request.Kind is BlockKind.Read or BlockKind.None || (!isFlush && (request.Length == 0 || !request.IsInside(Geometry))))
        {
            request.PassThrough(this);
            _pair.Source.Submit(request); // changes nothing
            return;
        }

        request.Run(this);
        MirrorSlot slot = _slots[_free[--_freeCount]];
        slot.Request = request;
        bool now = true;
        if (!isFlush)
        {
            ulong end = request.Offset + request.Length;
            slot.Ticket = _mirror.Ranges.Enter(request.Offset, end, exclusive: true, _bell, out now);
        }

        if (now)
        {
            Begin(slot);
        }
        else
        {
            Wait(slot, MirrorStep.WaitsForRange);
        }
    }

    /// <inheritdoc/>
    public void Completed(BlockRequest request, DiskStatus status)
    {
        if (ReferenceEquals(request.Owner, this))
        {
            PartEnded(_slots[request.Token], request, status);
        }
        else
        {
            Answer(request, status);
        }
    }

    /// <inheritdoc/>
    void IBlockLeaf.OnStep(BlockRequest request, int result) =>
        throw new InvalidOperationException("A mirror begins nothing on the loop with a request of others.");

    /// <summary>Closes both disks as it closes itself; only the one that is the disk now has to succeed with its flush.</summary>
    public ValueTask FlushAndCloseAsync()
    {
        if (_closed is null && !_disposed)
        {
            _closed = new TaskCompletionSource();
            CloseIfIdle();
        }

        return _closed is null ? default : new ValueTask(_closed.Task);
    }

    public void Dispose()
    {
        if (!_disposed)
        {
            this.WaitForAll(_loop);
            Release();
            _pair.Dispose();
        }
    }

    private void CloseIfIdle()
    {
        if (InFlight == 0 && !_disposed)
        {
            Release();
            _pair.Close(_closed!);
        }
    }

    // Nothing is in flight.
    private void Release()
    {
        _disposed = true;
        _mirror.Forget(_bell);
        _mirror.Ranges.Return(_depth);
        _loop.Unwatch(_doorbell);
        _bell.Dispose();
        _buffers.Dispose();
        foreach (MirrorSlot slot in _slots)
        {
            _loop.Remove(slot.Source);
            _loop.Remove(slot.Target);
        }
    }

    private void Wait(MirrorSlot slot, MirrorStep how)
    {
        slot.Step = how;
        _waiting++;
        _doorbell.Arm();
    }

    // The bell rang.
    private void GoOn()
    {
        foreach (MirrorSlot slot in _slots)
        {
            if (slot.Step == MirrorStep.WaitsForRange && _mirror.Ranges.IsGranted(slot.Ticket))
            {
                _waiting--;
                Begin(slot);
            }
            else if (slot.Step == MirrorStep.Undecided && _mirror.MayAnswer(_bell))
            {
                _waiting--;
                Finish(slot);
            }
        }

        if (_waiting > 0)
        {
            _doorbell.Arm();
        }
    }

    // It has its range: the copier is not there now, and what it has copied stays as it is until this is over.
    private void Begin(MirrorSlot slot)
    {
        BlockRequest request = slot.Request!;
        slot.SourceStatus = DiskStatus.Ok;
        slot.OnTarget = request.Kind == BlockKind.Flush ? _mirror.MirrorsFlushes : _mirror.Mirrors(request.Offset);
        if (slot.OnTarget)
        {
            slot.Progress = new RawProgress { Operation = RawOperation.Write, Offset = request.Offset, Remaining = request.Length };
            BeginPiece(slot);
            return;
        }

        slot.Step = MirrorStep.AtSource;
        slot.Source.Prepare(request.Kind, request.Offset, request.Length, request.Flags);
        slot.Source.SetData(request.Vectors);
        _pair.Source.Submit(slot.Source);
    }

    private void BeginPiece(MirrorSlot slot)
    {
        BlockRequest request = slot.Request!;
        ref RawProgress rest = ref slot.Progress;
        bool isWrite = request.Kind == BlockKind.Write;
        if (isWrite && !_buffers.TryTake(slot))
        {
            return;
        }

        slot.Step = MirrorStep.AtBoth;
        slot.Piece = (uint)(isWrite ? Math.Min(rest.Remaining, BounceBuffers.BufferBytes) : rest.Remaining);
        if (isWrite)
        {
            rest.CopyTo(request.Vectors, _buffers.Bytes(slot));
        }

        slot.OnTarget &= _mirror.IsSound;
        slot.TargetStatus = DiskStatus.Ok;
        slot.Asked = slot.OnTarget ? 2 : 1;
        Ask(_pair.Source, slot.Source, slot, request.Kind, request.Flags);
        if (slot.OnTarget)
        {
            Ask(_pair.Target, slot.Target, slot, request.Kind, request.Flags);
        }
    }

    // The rest of what the source failed: its content there is not known, and the target has to have the same.
    private void Reread(MirrorSlot slot)
    {
        if (_buffers.TryTake(slot))
        {
            slot.Step = MirrorStep.Rereading;
            slot.Piece = (uint)Math.Min(slot.Progress.Remaining, BounceBuffers.BufferBytes);
            slot.Asked = 1;
            Ask(_pair.Source, slot.Source, slot, BlockKind.Read);
        }
    }

    private void Ask(IBlockNode disk, BlockRequest part, MirrorSlot slot, BlockKind kind, BlockFlags flags = BlockFlags.None)
    {
        part.Prepare(kind, slot.Progress.Offset, slot.Piece, flags);
        if (kind is BlockKind.Read or BlockKind.Write)
        {
            part.SetData(_buffers.Vectors(slot));
        }

        disk.Submit(part);
    }

    private void PartEnded(MirrorSlot slot, BlockRequest part, DiskStatus status)
    {
        if (slot.Step == MirrorStep.AtSource)
        {
            slot.SourceStatus = status;
            End(slot);
            return;
        }

        if (slot.Step is MirrorStep.Rereading or MirrorStep.Repeating)
        {
            AdvanceRepeating(slot, status);
            return;
        }

        if (ReferenceEquals(part, slot.Target))
        {
            // A discard is a hint: one disk may take it where the other does not.
            slot.TargetStatus = status == DiskStatus.NotSupported && part.Kind == BlockKind.Discard ? DiskStatus.Ok : status;
        }
        else
        {
            slot.SourceStatus = status;
        }

        if (--slot.Asked == 0)
        {
            Advance(slot);
        }
    }

    private void Advance(MirrorSlot slot)
    {
        ref RawProgress rest = ref slot.Progress;
        if (slot.TargetStatus != DiskStatus.Ok)
        {
            FailTarget(slot, slot.TargetStatus);
        }

        if (slot.SourceStatus == DiskStatus.Ok)
        {
            rest.Skip(slot.Request!.Vectors, slot.Piece);
            if (rest.Remaining > 0)
            {
                BeginPiece(slot);
            }
            else
            {
                End(slot);
            }
        }
        else if (slot.OnTarget && slot.Piece > 0)
        {
            rest.Remaining = slot.Piece; // nothing more of the request is done
            Reread(slot);
        }
        else
        {
            End(slot);
        }
    }

    private void AdvanceRepeating(MirrorSlot slot, DiskStatus status)
    {
        ref RawProgress rest = ref slot.Progress;
        if (status != DiskStatus.Ok)
        {
            FailTarget(slot, status);
            End(slot);
        }
        else if (slot.Step == MirrorStep.Rereading)
        {
            slot.Step = MirrorStep.Repeating;
            Ask(_pair.Target, slot.Target, slot, BlockKind.Write, slot.Request!.Flags & BlockFlags.Fua);
        }
        else
        {
            rest.Offset += slot.Piece;
            rest.Remaining -= slot.Piece;
            if (rest.Remaining > 0)
            {
                Reread(slot);
            }
            else
            {
                End(slot);
            }
        }
    }

    private void FailTarget(MirrorSlot slot, DiskStatus status)
    {
        slot.OnTarget = false;
        _mirror.Fail(status, slot.Step == MirrorStep.Rereading
            ? MirrorCopier.SourceFailed(slot.Progress.Offset)
            : MirrorCopier.TargetFailed(status, slot.Progress.Offset));
    }

    // The source has done with the request, and so has the target as far as it takes part.
    private void End(MirrorSlot slot)
    {
        if (slot.Ticket >= 0)
        {
            _mirror.Ranges.Leave(slot.Ticket);
            slot.Ticket = -1;
        }

        if (_buffers.Return(slot) is { } next)
        {
            if (next.SourceStatus == DiskStatus.Ok)
            {
                BeginPiece(next);
            }
            else
            {
                Reread(next);
            }
        }

        if (slot.OnTarget || _mirror.MayAnswer(_bell))
        {
            Finish(slot);
        }
        else
        {
            Wait(slot, MirrorStep.Undecided);
        }
    }

    private void Finish(MirrorSlot slot)
    {
        BlockRequest request = slot.Request!;
        slot.Request = null;
        slot.Step = MirrorStep.Free;
        _free[_freeCount++] = slot.Index;
        Answer(request, slot.SourceStatus);
    }

    private void Answer(BlockRequest request, DiskStatus status)
    {
        InFlight--;
        request.Complete(status);
        if (_closed is not null)
        {
            CloseIfIdle();
        }
    }
}
