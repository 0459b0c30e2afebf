using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage;

/// <summary>
/// A raw file as one loop reaches it: order and waiting. <see cref="UringTransfers"/> moves the bytes. A request passes up to two gates
/// first: the ranges of other writes in flight (<see cref="WriteRanges"/>), then a bounce buffer. Who holds a buffer waits for nothing but
/// the kernel, and for its turn to flush (<see cref="FlushGate"/>), which only the kernel holds up.
/// </summary>
internal sealed class RawNode : IBlockNode, IBlockLeaf, IBlockOwner
{
    private readonly RawFileBackend _disk;
    private readonly IoLoop _loop;
    private readonly UringTransfers _transfers;
    private readonly AtOncePolicy _atOnce;
    private readonly int _depth;
    private readonly EventFd? _bell; // rung when a request of this node that waits for another node's may go on
    private readonly Doorbell? _watch;
    private readonly FlushTurn? _turn; // null when the disk's flushes need no order
    private RequestList _waitForRange, _waitForBuffer;
    private long _written, _flushed; // writes that ended, and those of them that a flush covers
    private BlockRequest? _lastFlush;
    private TaskCompletionSource? _closed;
    private bool _disposed;

    internal RawNode(RawFileBackend disk, IoLoop loop, int depth)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(depth);
        _disk = disk;
        _loop = loop;
        _depth = depth;
        _transfers = new UringTransfers(disk, loop);
        _atOnce = new AtOncePolicy(disk, loop);
        if (disk.Ranges is not null || disk.Flushes is not null)
        {
            _bell = new EventFd();
            _watch = loop.Watch(_bell, Rung);
            disk.Ranges?.Reserve(depth);
            _turn = disk.Flushes?.Join(_bell);
        }
    }

    public BlockGeometry Geometry => _disk.Geometry;

    public int InFlight { get; private set; }

    public bool WritesZeroesAsData(bool mayUnmap) => _transfers.ZeroOperation(mayUnmap) == RawOperation.ZeroByWriting;

    public void Submit(BlockRequest request)
    {
        if (InFlight == _depth || _closed is not null)
        {
            throw new InvalidOperationException(_closed is null ? "More requests than the node's depth." : "The node is being closed.");
        }

        Start(request);
    }

    private void Start(BlockRequest request)
    {
        request.Run(this);
        InFlight++;
        _transfers.Begin(request);
        request.Progress.Covers = _written;
        bool isRefused = request.Kind == BlockKind.None || (request.Kind != BlockKind.Flush && !request.IsInside(Geometry))
            || (_disk.HasLostFlush && (request.Kind == BlockKind.Flush || request.Progress.SyncAfter));
        if (isRefused)
        {
            _loop.CompleteLater(request, -Errno.EIO);
        }
        else if (MayRun(request))
        {
            Run(request);
        }
        else
        {
            _waitForRange.Add(request);
            _watch!.Arm();
        }
    }

    public void OnStep(BlockRequest request, int result)
    {
        bool flushes = request.Progress.IsFlushing;
        TransferStep step = _transfers.Advance(request, result, out DiskStatus status);
        if (step != TransferStep.Done)
        {
            Park(request, step);
        }
        else if (flushes)
        {
            EndFlush(request, status);
        }
        else
        {
            End(request, status);
        }
    }

    private void EndFlush(BlockRequest request, DiskStatus status)
    {
        // One that began before another failed may say that all is well.
        status = status == DiskStatus.Ok && _disk.HasLostFlush ? DiskStatus.IoError : status;
        _disk.HasLostFlush |= status != DiskStatus.Ok;
        if (_turn is null)
        {
            End(request, status);
            return;
        }

        _disk.Flushes!.End(_turn, failed: status != DiskStatus.Ok);
        End(request, status);
        GoOnFlushing();
    }

    // Requests of this node whose turn it is, or for which another node flushed.
    private void GoOnFlushing()
    {
        FlushStep step;
        while (!_disposed && (step = _disk.Flushes!.Take(_turn!, out BlockRequest request)) != FlushStep.None)
        {
            if (step == FlushStep.Flush)
            {
                Flush(request);
            }
            else
            {
                End(request, step == FlushStep.Served ? DiskStatus.Ok : DiskStatus.IoError);
            }
        }

        if (!_disposed && _disk.Flushes!.AnyWaits(_turn!))
        {
            _watch!.Arm();
        }
    }

    private void Flush(BlockRequest request)
    {
        request.Progress.IsFlushing = true;
        _transfers.Issue(request);
    }

    private void Rung()
    {
        if (_disk.Ranges is not null)
        {
            StartGranted();
        }

        if (_turn is not null)
        {
            GoOnFlushing();
        }
    }

    public ValueTask FlushAndCloseAsync()
    {
        if (_closed is null && !_disposed)
        {
            _closed = new TaskCompletionSource();
            CloseIfIdle();
        }

        return _closed is null ? default : new ValueTask(_closed.Task);
    }

    /// <summary>The flush at the end is over.</summary>
    void IBlockOwner.Completed(BlockRequest request, DiskStatus status)
    {
        _loop.Remove(request);
        Dispose();
        if (status == DiskStatus.Ok)
        {
            _closed!.SetResult();
            return;
        }

        string why = status == DiskStatus.NoSpace ? "the file system is full" : "the host reports an I/O error";
        string message = $"disk {_disk.Path}: the flush at its end failed: {why}; what was written last may be lost";
        _closed!.SetException(new BlockException(BlockErrorKind.Io, message) { Path = _disk.Path, Status = status });
    }

    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        this.WaitForAll(_loop);

        _disposed = true;
        if (_turn is not null)
        {
            _disk.Flushes!.Leave(_turn);
        }

        if (_watch is { } watch)
        {
            _disk.Ranges?.Return(_depth);
            _loop.Unwatch(watch);
        }

        _bell?.Dispose();
        _transfers.Dispose();
    }

    // Registers a write among those of the disk, where a read-modify-write is possible at all.
    private bool MayRun(BlockRequest request)
    {
        ref RawProgress r = ref request.Progress;
        if (_disk.Ranges is not { } ranges || r.Operation is RawOperation.Read or RawOperation.Flush)
        {
            return true;
        }

        ulong block = _disk.DirectOffsetAlign;
        ulong begin = r.Offset - (r.Offset % block), end = (r.Offset + r.Remaining + block - 1) / block * block;
        // Zeros may have to be written in the end. A discard never is.
        bool exclusive = r.Operation != RawOperation.Discard && !_transfers.IsWholeBlocks(r.Offset, r.Remaining);
        r.Ticket = ranges.Enter(begin, end, exclusive, _bell!, out bool now);
        return now;
    }

    private void StartGranted()
    {
        for (int left = _waitForRange.Count; left > 0; left--)
        {
            BlockRequest request = _waitForRange.Take()!;
            if (_disk.Ranges!.IsGranted(request.Progress.Ticket))
            {
                Run(request);
            }
            else
            {
                _waitForRange.Add(request);
            }
        }

        if (_waitForRange.Count > 0)
        {
            _watch!.Arm();
        }
    }

    private void Run(BlockRequest request)
    {
        ref RawProgress r = ref request.Progress;
        if (r.Operation <= RawOperation.Write && r.Remaining <= AtOncePolicy.Longest && r.Fits && _atOnce.TryTransfer(
            r.Operation == RawOperation.Read, _transfers.File, request.VectorAddress, request.VectorCount, r.Offset, out int result))
        {
            _loop.CompleteLater(request, result);
            return;
        }

        Park(request, r.Operation == RawOperation.Flush ? TransferStep.NeedsFlush : _transfers.Issue(request));
    }

    private void Park(BlockRequest request, TransferStep step)
    {
        if (step == TransferStep.NeedsBuffer)
        {
            _waitForBuffer.Add(request);
        }
        else if (step == TransferStep.NeedsFlush)
        {
            if (_turn is null || _disk.Flushes!.TryBegin(_turn, request))
            {
                Flush(request);
            }
            else
            {
                _watch!.Arm();
            }
        }
    }

    private void End(BlockRequest request, DiskStatus status)
    {
        ref RawProgress r = ref request.Progress;
        request.IsFinal = status != DiskStatus.Ok && r.Operation == RawOperation.Flush;
        if (r.Ticket >= 0)
        {
            _disk.Ranges!.Leave(r.Ticket);
        }

        if (_transfers.Release(ref r) && _waitForBuffer.Take() is { } next)
        {
            Park(next, _transfers.Issue(next));
        }

        InFlight--;
        Account(request, status);
        request.Complete(status);
        if (_closed is not null && !_disposed)
        {
            CloseIfIdle();
        }
    }

    private void Account(BlockRequest request, DiskStatus status)
    {
        if (request.Kind == BlockKind.Flush)
        {
            _flushed = status == DiskStatus.Ok ? Math.Max(_flushed, request.Progress.Covers) : _flushed;
        }
        else
        {
            _written += request.Kind == BlockKind.Read ? 0 : 1;
        }
    }

    private void CloseIfIdle()
    {
        if (InFlight > 0 || _lastFlush is not null)
        {
            return;
        }

        if (_written == _flushed)
        {
            Dispose();
            _closed!.SetResult();
            return;
        }

        _lastFlush = new BlockRequest(this);
        _loop.Add(_lastFlush);
        _lastFlush.Prepare(BlockKind.Flush);
        Start(_lastFlush);
        _loop.Submit();
    }
}
