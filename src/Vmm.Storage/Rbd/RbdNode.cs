using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.Rbd;

/// <summary>An RBD disk as its loop reaches it. A bell of the library's rings when commands are over.</summary>
internal sealed class RbdNode : IBlockNode, IBlockLeaf, IBlockOwner
{
    private readonly RbdBackend _disk;
    private readonly RbdImage _image;
    private readonly IoLoop _loop;
    private readonly Doorbell _doorbell;
    private readonly BlockRequest?[] _requests;
    private readonly int[] _free;
    private readonly (int Number, long Result)[] _ends = new (int, long)[64];
    private int _freeCount;
    private BlockRequest? _lastFlush;
    private TaskCompletionSource? _closed;
    private bool _hasUnflushed, _isFenced, _disposed;

    internal RbdNode(RbdBackend disk, IoLoop loop, int depth)
    {
        (_disk, _image, _loop) = (disk, disk.Image, loop);
        int slots = depth + 1; // and the flush at the end
        (_requests, _free) = (new BlockRequest?[slots], new int[slots]);
        for (int i = slots - 1; i >= 0; i--)
        {
            _free[_freeCount++] = i;
        }

        try
        {
            _image.RingAtEnds(disk.Bell);
        }
        catch (KernelException cause)
        {
            throw new BlockException(BlockErrorKind.Io, $"disk {disk.Name}: {cause.Message}", cause) { Path = disk.Name };
        }

        _doorbell = loop.Watch(disk.Bell, TakeEnds);
    }

    public BlockGeometry Geometry => _disk.Geometry;

    public int InFlight { get; private set; }

    public bool WritesZeroesAsData(bool mayUnmap) => !mayUnmap;

    public void Submit(BlockRequest request)
    {
        if (_closed is not null || InFlight >= _requests.Length - 1)
        {
            throw new InvalidOperationException(_closed is null ? "More requests than the node's depth." : "The node is being closed.");
        }

        Start(request);
    }

    /// <summary>An end that needed no command, or came by one.</summary>
    public void OnStep(BlockRequest request, int result)
    {
        InFlight--;
        request.IsFinal = result != (int)DiskStatus.Ok && request.Progress.Operation == RawOperation.Flush;
        request.Complete((DiskStatus)result);
        if (_closed is not null && !_disposed)
        {
            CloseIfIdle();
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
            $"disk {_disk.Name}: the flush at its end failed; what was written last may be lost") { Path = _disk.Name, Status = status });
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
    }

    private void Start(BlockRequest request)
    {
        request.Run(this);
        InFlight++;
        ref RawProgress r = ref request.Progress;
        r.Operation = request.Kind switch
        {
            BlockKind.Read => RawOperation.Read,
            BlockKind.Write => RawOperation.Write,
            BlockKind.Discard => RawOperation.Discard,
            BlockKind.WriteZeroes => (request.Flags & BlockFlags.MayUnmap) != 0 ? RawOperation.ZeroByPunch : RawOperation.ZeroRange,
            _ => RawOperation.Flush,
        };
        r.SyncAfter = (request.Flags & BlockFlags.Fua) != 0;
        if (request.Kind == BlockKind.None || (request.Kind != BlockKind.Flush && !request.IsInside(Geometry)))
        {
            _loop.CompleteLater(request, (int)(request.Kind == BlockKind.None ? DiskStatus.NotSupported : DiskStatus.IoError));
        }
        else if (request.Kind != BlockKind.Flush && request.Length == 0)
        {
            _loop.CompleteLater(request, (int)DiskStatus.Ok);
        }
        else
        {
            Issue(request);
        }
    }

    private void Issue(BlockRequest request)
    {
        int slot = _free[--_freeCount];
        RbdCommand command = request.Progress.Operation switch
        {
            RawOperation.Read => RbdCommand.Read,
            RawOperation.Write => RbdCommand.Write,
            RawOperation.Discard => RbdCommand.Discard,
            RawOperation.ZeroByPunch => RbdCommand.Zero,
            RawOperation.ZeroRange => RbdCommand.ZeroThick,
            _ => RbdCommand.Flush,
        };
        _hasUnflushed |= request.Progress.Operation is not (RawOperation.Read or RawOperation.Flush);
        int answer = _image.TryIssue(command, slot, request.VectorAddress, request.VectorCount, request.Offset, request.Length);
        if (answer < 0)
        {
            _free[_freeCount++] = slot;
            _loop.CompleteLater(request, (int)StatusOf(answer));
            return;
        }

        _requests[slot] = request;
        _doorbell.Arm();
    }

    private void TakeEnds()
    {
        int count;
        do
        {
            count = _image.TakeEnds(_ends);
            for (int i = 0; i < count; i++)
            {
                End(_ends[i].Number, _ends[i].Result);
            }
        }
        while (count == _ends.Length);
        if (_freeCount < _free.Length)
        {
            _doorbell.Arm();
        }
    }

    private void End(int slot, long result)
    {
        BlockRequest request = _requests[slot]!;
        _requests[slot] = null;
        _free[_freeCount++] = slot;
        ref RawProgress r = ref request.Progress;
        bool isShort = r.Operation == RawOperation.Read && result >= 0 && result != request.Length;
        if (result >= 0 && !isShort && r.SyncAfter)
        {
            (r.SyncAfter, r.Operation) = (false, RawOperation.Flush);
            Issue(request);
            return;
        }

        _loop.CompleteLater(request, (int)(isShort ? DiskStatus.IoError : StatusOf(result))); // a doorbell does not count as work
    }

    private DiskStatus StatusOf(long result)
    {
        if (result == -Errno.ESHUTDOWN && !_isFenced)
        {
            _isFenced = true;
            _disk.Fenced?.Invoke();
        }

        return result >= 0 ? DiskStatus.Ok : -result switch
        {
            Errno.ENOSPC or Errno.EDQUOT => DiskStatus.NoSpace,
            Errno.EOPNOTSUPP => DiskStatus.NotSupported,
            _ => DiskStatus.IoError,
        };
    }

    private void CloseIfIdle()
    {
        if (InFlight > 0 || _lastFlush is not null)
        {
            return;
        }

        if (!_hasUnflushed || _isFenced)
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
