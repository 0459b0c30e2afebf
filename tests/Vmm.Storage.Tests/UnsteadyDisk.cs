using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.Tests;

/// <summary>
/// A disk in memory that carries requests out late and in any order, as a real one may, and fails those that a test wants it to.
/// </summary>
internal sealed class UnsteadyDisk(int size, int seed = 0, int blockSize = 512) : IDiskBackend
{
    private readonly Lock _gate = new();
    private readonly Random _random = new(seed);

    public byte[] Content { get; } = new byte[size];

    public BlockGeometry Geometry { get; } =
        new((ulong)size, blockSize, blockSize, ReadOnly: false, DiskAbilities.Discard | DiskAbilities.WriteZeroes);

    /// <summary>Decides how a request ends, before anything of it is done.</summary>
    public Func<BlockRequest, DiskStatus> Verdict { get; set; } = _ => DiskStatus.Ok;

    /// <summary>Longest time that a request waits, in microseconds.</summary>
    public int Slowness { get; set; }

    /// <summary>Flushes that succeeded.</summary>
    public int Flushes { get; private set; }

    public bool IsClosed { get; private set; }

    public IBlockNode CreateNode(IoLoop loop, int depth) => new Node(this, loop);

    public void Dispose() => IsClosed = true;

    private int Delay()
    {
        lock (_gate)
        {
            return _random.Next(Slowness + 1);
        }
    }

    // Threads take turns, as they do at one disk.
    private DiskStatus Execute(BlockRequest request)
    {
        lock (_gate)
        {
            Assert.False(IsClosed);
            DiskStatus status = Verdict(request);
            if (status != DiskStatus.Ok || request.Kind == BlockKind.Flush)
            {
                Flushes += status == DiskStatus.Ok ? 1 : 0;
                return status;
            }

            Span<byte> range = Content.AsSpan((int)request.Offset, (int)request.Length);
            if (request.Kind is BlockKind.Discard or BlockKind.WriteZeroes)
            {
                range.Clear();
            }

            foreach (ref readonly IoVector v in request.Vectors)
            {
                Span<byte> memory = HostSpan.Bytes(v.Base, (int)v.Length);
                (request.Kind == BlockKind.Read ? range[..memory.Length] : memory).CopyTo(
                    request.Kind == BlockKind.Read ? memory : range);
                range = range[memory.Length..];
            }

            return DiskStatus.Ok;
        }
    }

    private sealed class Node(UnsteadyDisk disk, IoLoop loop) : IBlockNode, IBlockOwner
    {
        private readonly List<Wait> _free = [];

        public BlockGeometry Geometry => disk.Geometry;

        public int InFlight { get; private set; }

        public bool WritesZeroesAsData(bool mayUnmap) => false;

        public void Submit(BlockRequest request)
        {
            InFlight++;
            request.PassThrough(this);
            if (_free.Count == 0)
            {
                _free.Add(new Wait(disk, loop, _free));
            }

            Wait wait = _free[^1];
            _free.RemoveAt(_free.Count - 1);
            wait.Begin(request);
        }

        public void Completed(BlockRequest request, DiskStatus status)
        {
            InFlight--;
            request.Complete(status);
        }

        public ValueTask FlushAndCloseAsync() => default;

        public void Dispose() => this.WaitForAll(loop);

        private sealed class Wait
        {
            private readonly UnsteadyDisk _disk;
            private readonly List<Wait> _free;
            private readonly IoTimer _timer;
            private BlockRequest? _request;

            internal Wait(UnsteadyDisk disk, IoLoop loop, List<Wait> free)
            {
                (_disk, _free) = (disk, free);
                _timer = loop.AddTimer(End);
            }

            internal void Begin(BlockRequest request)
            {
                _request = request;
                _timer.SetMicroseconds(_disk.Delay());
            }

            private void End()
            {
                BlockRequest request = _request!;
                _free.Add(this);
                request.Answer(_disk.Execute(request));
            }
        }
    }
}
