using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.Nbd;

/// <summary>
/// An NBD disk as one loop reaches it: hands requests to the disk's thread and takes them back. A bell rings when some are over.
/// </summary>
internal sealed class NbdNode : IBlockNode, IBlockLeaf, IBlockOwner
{
    private readonly NbdBackend _disk;
    private readonly NbdLink _link;
    private readonly NbdShape _shape;
    private readonly IoLoop _loop;
    private readonly int _depth;
    private readonly EventFd _bell = new();
    private readonly Doorbell _doorbell;
    private readonly Lock _gate = new();
    private RequestList _over; // under the gate
    private int _away; // requests that the disk's thread has
    private BlockRequest? _lastFlush;
    private TaskCompletionSource? _closed;
    private bool _disposed;

    internal NbdNode(NbdBackend disk, NbdLink link, IoLoop loop, int depth)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(depth);
        (_disk, _link, _loop, _depth) = (disk, link, loop, depth);
        _shape = link.Shape!;
        _doorbell = loop.Watch(_bell, TakeOver);
    }

    public BlockGeometry Geometry => _shape.Geometry;

    public int InFlight { get; private set; }

    public bool WritesZeroesAsData(bool mayUnmap) => !_shape.CanZero;

    public void Submit(BlockRequest request)
    {
        if (InFlight == _depth || _closed is not null)
        {
            throw new InvalidOperationException(_closed is null ? "More requests than the node's depth." : "The node is being closed.");
        }

        Start(request);
    }

    public void OnStep(BlockRequest request, int result) => End(request, (DiskStatus)result);

    /// <summary>A request that the disk's thread had is over; its status is in its progress. On that thread.</summary>
    internal void Return(BlockRequest request)
    {
        lock (_gate)
        {
            _over.Add(request);
            if (_over.Count == 1)
            {
                _bell.Signal();
            }
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

        _closed!.SetException(new BlockException(BlockErrorKind.Io,
            $"disk {_link.Name}: the flush at its end failed: {_link.Problem ?? "the server reports an error"}; what was written last may "
                + "be lost") { Path = _link.Name, Status = status });
    }

    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        this.WaitForAll(_loop);
        _disposed = true;
        _loop.Unwatch(_doorbell);
        lock (_gate) // whoever rang last is through
        {
            _bell.Dispose();
        }

        _disk.Left();
    }

    private void Start(BlockRequest request)
    {
        request.Run(this);
        InFlight++;
        NbdCommands.Begin(request, _shape);
        request.Progress.Covers = _link.Requests.Written;
        if (AnswerAtOnce(request) is { } status)
        {
            _loop.CompleteLater(request, (int)status);
            return;
        }

        _away++;
        _doorbell.Arm();
        _link.Submit(request);
    }

    // What needs no server.
    private DiskStatus? AnswerAtOnce(BlockRequest request)
    {
        if (request.Kind == BlockKind.None || (request.Kind != BlockKind.Flush && !request.IsInside(Geometry)))
        {
            return DiskStatus.IoError;
        }

        bool isWhole = ((request.Offset | request.Length) & (_shape.Block - 1)) == 0;
        return request.Kind switch
        {
            BlockKind.Flush => _shape.CanFlush ? null : DiskStatus.Ok, // what it answered is stable
            BlockKind.Discard => _shape.CanTrim && isWhole && request.Length > 0 ? null : DiskStatus.Ok, // a hint
            _ => !isWhole ? DiskStatus.IoError : request.Length == 0 ? DiskStatus.Ok : null,
        };
    }

    private void TakeOver()
    {
        RequestList over;
        lock (_gate)
        {
            over = _over;
            _over = default;
        }

        _away -= over.Count;
        if (_away > 0)
        {
            _doorbell.Arm();
        }

        while (over.Take() is { } request)
        {
            _loop.CompleteLater(request, (int)request.Progress.Status); // a doorbell does not count as work: who polls would sleep
        }
    }

    private void End(BlockRequest request, DiskStatus status)
    {
        bool isFlush = request.Progress.Operation == RawOperation.Flush;
        request.IsFinal = status != DiskStatus.Ok && isFlush && !request.LostNothing;
        InFlight--;
        request.Complete(status);
        if (_closed is not null && !_disposed)
        {
            CloseIfIdle();
        }
    }

    private void CloseIfIdle()
    {
        if (InFlight > 0 || _lastFlush is not null)
        {
            return;
        }

        if (!_link.Requests.HasUnflushed)
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
