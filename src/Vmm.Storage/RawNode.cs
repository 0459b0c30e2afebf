using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage;

/// <summary>
/// A raw file as one loop reaches it: order and waiting. <see cref="UringTransfers"/> moves the bytes. A request passes up to two gates
/// first: the ranges of other writes in flight (<see cref="WriteRanges"/>), then a bounce buffer. Who holds a buffer waits for nothing but
/// the kernel.
/// </summary>
internal sealed class RawNode : IBlockNode, IBlockLeaf, IBlockOwner
{
    private readonly RawFileBackend _disk;
    private readonly IoLoop _loop;
    private readonly UringTransfers _transfers;
    private readonly AtOncePolicy _atOnce;
    private readonly int _depth;
    private readonly EventFd? _granted; // rung when a request of this node may run; null when no write of this disk can conflict
    private readonly Doorbell? _grantBell;
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
        Geometry = disk.Geometry;
        _transfers = new UringTransfers(disk, loop);
        _atOnce = new AtOncePolicy(disk, loop);
        if (disk.Ranges is { } ranges)
        {
            _granted = new EventFd();
            _grantBell = loop.Watch(_granted, StartGranted);
            ranges.Reserve(depth);
        }
    }

    public BlockGeometry Geometry { get; }

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
        if (request.Kind == BlockKind.None || (request.Kind != BlockKind.Flush && !request.IsInside(Geometry)))
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
            _grantBell!.Arm();
        }
    }

    public void OnStep(BlockRequest request, int result)
    {
        TransferStep step = _transfers.Advance(request, result, out DiskStatus status);
        if (step == TransferStep.Done)
        {
            End(request, status);
        }
        else
        {
            Park(request, step);
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
        if (_grantBell is { } bell)
        {
            _disk.Ranges!.Return(_depth);
            _loop.Unwatch(bell);
        }

        _granted?.Dispose();
        _transfers.Dispose();
    }

    // Registers a write among those of the disk, where a read-modify-write is possible at all.
    private bool MayRun(BlockRequest request)
    {
        ref RawProgress r = ref request.Progress;
        if (_granted is null || r.Operation is RawOperation.Read or RawOperation.Flush)
        {
            return true;
        }

        ulong block = _disk.DirectOffsetAlign;
        ulong begin = r.Offset - (r.Offset % block), end = (r.Offset + r.Remaining + block - 1) / block * block;
        // Zeros may have to be written in the end. A discard never is.
        bool exclusive = r.Operation != RawOperation.Discard && !_transfers.IsWholeBlocks(r.Offset, r.Remaining);
        r.Ticket = _disk.Ranges!.Enter(begin, end, exclusive, _granted, out bool now);
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
            _grantBell!.Arm();
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

        Park(request, _transfers.Issue(request));
    }

    private void Park(BlockRequest request, TransferStep step)
    {
        if (step == TransferStep.NeedsBuffer)
        {
            _waitForBuffer.Add(request);
        }
    }

    private void End(BlockRequest request, DiskStatus status)
    {
        ref RawProgress r = ref request.Progress;
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
