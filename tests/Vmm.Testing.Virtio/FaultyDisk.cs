using Vmm.Io;
using Vmm.Storage;

namespace Vmm.Testing.Virtio;

/// <summary>A disk that fails, or holds requests back for some rounds, as its owner says.</summary>
public sealed class FaultyDisk(IDiskBackend inner) : IDiskBackend
{
    public volatile DiskStatus Answer;
    public volatile int DelayRounds;
    public volatile int Disposed;

    /// <summary>Flushes, and requests with FUA.</summary>
    public volatile int Flushes;

    /// <summary>Nodes that were flushed and closed.</summary>
    public volatile int Closed;

    /// <summary>Requests that were not wholly on the disk: the device has to refuse them before.</summary>
    public volatile int Outside;

    /// <summary>As long as it is set no request ends, as on a file system that hangs.</summary>
    public volatile bool Hold;

    /// <summary>Requests that it does not let end now.</summary>
    public volatile int Holding;

    private volatile IoLoop? _loop;

    /// <summary>How often the I/O thread that used it last went to sleep.</summary>
    public int Waits => _loop?.Sleeps ?? 0;

    /// <summary>What the disk says of itself instead of the truth.</summary>
    public BlockGeometry? Shape { get; init; }

    /// <inheritdoc/>
    public void OnGeometryChanged(Action changed) => inner.OnGeometryChanged(changed);

    /// <inheritdoc/>
    public void Refresh() => inner.Refresh();

    public BlockGeometry Geometry => Shape ?? inner.Geometry;

    public IBlockNode CreateNode(IoLoop loop, int depth)
    {
        _loop = loop;
        return new Node(this, loop, inner.CreateNode(loop, depth));
    }

    public void Dispose() => Disposed++;

    private sealed class Node : IBlockNode, IBlockOwner
    {
        private readonly FaultyDisk _disk;
        private readonly IoLoop _loop;
        private readonly IBlockNode _inner;
        private readonly Tick _tick;
        private readonly IoTimer _look;
        private readonly Queue<(BlockRequest Request, DiskStatus Status)> _waiting = new();
        private int _round;

        public Node(FaultyDisk disk, IoLoop loop, IBlockNode inner)
        {
            _disk = disk;
            _loop = loop;
            _inner = inner;
            _tick = new Tick(Release);
            _look = loop.AddTimer(Release);
            loop.Add(_tick);
        }

        public BlockGeometry Geometry => _disk.Geometry;

        public int InFlight { get; private set; }

        public bool WritesZeroesAsData(bool mayUnmap) => _inner.WritesZeroesAsData(mayUnmap);

        public void Submit(BlockRequest request)
        {
            ulong capacity = Geometry.CapacityBytes;
            _disk.Outside += request.Offset <= capacity && request.Length <= capacity - request.Offset ? 0 : 1;
            _disk.Flushes += request.Kind == BlockKind.Flush || (request.Flags & BlockFlags.Fua) != 0 ? 1 : 0;
            InFlight++;
            request.PassThrough(this);
            _inner.Submit(request);
        }

        public void Completed(BlockRequest request, DiskStatus status)
        {
            _waiting.Enqueue((request, status));
            _disk.Holding = _waiting.Count;
            if (_waiting.Count == 1)
            {
                _round = 0;
                Release();
            }
        }

        /// <summary>What its owner makes requests answer, the flush at the end answers, too.</summary>
        public async ValueTask FlushAndCloseAsync()
        {
            this.WaitForAll(_loop);
            _loop.RemoveTimer(_look);
            _loop.Remove(_tick);
            _disk.Closed++;
            await _inner.FlushAndCloseAsync().ConfigureAwait(false);
            if (_disk.Answer != DiskStatus.Ok)
            {
                throw new BlockException(BlockErrorKind.Io, "as its owner says") { Status = _disk.Answer };
            }
        }

        public void Dispose()
        {
            this.WaitForAll(_loop);
            _inner.Dispose();
            _loop.RemoveTimer(_look);
            _loop.Remove(_tick);
        }

        private void Release()
        {
            if (_disk.Hold)
            {
                _look.Set(5);
                return;
            }

            if (_round++ < _disk.DelayRounds)
            {
                _loop.CompleteLater(_tick, 0);
                return;
            }

            while (_waiting.TryDequeue(out (BlockRequest Request, DiskStatus Status) over))
            {
                InFlight--;
                _disk.Holding = _waiting.Count;
                over.Request.Complete(_disk.Answer != DiskStatus.Ok ? _disk.Answer : over.Status);
            }
        }

        private sealed class Tick(Action ticked) : IoOperation
        {
            protected override void OnCompleted(int result) => ticked();
        }
    }
}
