using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.Tests.Crash;

/// <summary>
/// One queue of a <see cref="Workload"/>: submits random requests, checks what was read, tells the model what was acknowledged.
/// </summary>
internal sealed class QueueWorker(Workload load, int queue, IDiskBackend disk, DiskModel model) : IBlockOwner
{
    private const int Sector = DiskModel.Sector, Slack = 512;

    private readonly Random _random = new(load.Seed + (queue * 1_000_003));
    private readonly Slot[] _slots = new Slot[Workload.Depth];
    private readonly Stack<int> _free = [];
    private int _left = load.Requests;

    /// <summary>The first thing that was not right.</summary>
    public string? Wrong { get; private set; }

    /// <summary>Its node said that what was written through it is durable.</summary>
    public bool IsClosed { get; private set; }

    /// <summary>What it waits for, when it hangs.</summary>
    public string Describe() => $"queue {queue}: {_left} left, in flight: " + string.Join(", ", _slots
        .Where(s => s?.Request.State is BlockState.Running or BlockState.Held)
        .Select(s => $"{s.Request.Kind} {s.Request.Length} at {s.Request.Offset}"));

    public void Run()
    {
        try
        {
            using IoLoop loop = new();
            using IBlockNode node = disk.CreateNode(loop, Workload.Depth);
            for (int i = 0; i < _slots.Length; i++)
            {
                _slots[i] = new Slot(new BlockRequest(this, i));
                loop.Add(_slots[i].Request);
                _free.Push(i);
            }

            Serve(loop, node);
            Close(loop, node);
        }
        catch (Exception error) when (error is not OutOfMemoryException)
        {
            Wrong ??= $"queue {queue}: {error}";
        }
        finally
        {
            foreach (Slot slot in _slots)
            {
                slot?.Dispose();
            }
        }
    }

    public void Completed(BlockRequest request, DiskStatus status)
    {
        Slot slot = _slots[request.Token];
        _free.Push(request.Token);
        if (status != DiskStatus.Ok)
        {
            if (!load.MayFail || status == DiskStatus.NotSupported)
            {
                Wrong ??= $"{request.Kind} of {request.Length} at {request.Offset}: {status}";
            }
        }
        else if (request.Kind == BlockKind.Flush)
        {
            model.FlushEnded(slot.Covers);
        }
        else if (request.Kind == BlockKind.Read)
        {
            Wrong ??= model.WrongToRead(slot.Data(request.Length), request.Offset) is { } wrong
                ? $"read of {request.Length} at {request.Offset}: {wrong}"
                : null;
        }
        else
        {
            model.Acknowledged(request.Offset, request.Length, (request.Flags & BlockFlags.Fua) != 0);
        }

        if (request.Kind != BlockKind.Flush)
        {
            model.Leave(request.Offset, request.Length);
        }
    }

    private void Serve(IoLoop loop, IBlockNode node)
    {
        while ((_left > 0 && Wrong is null) || _free.Count < _slots.Length)
        {
            // Now and then it lets the queue run dry.
            int most = _random.Next(1, Workload.Depth + 1);
            while (_left > 0 && Wrong is null && _free.Count > 0 && _slots.Length - _free.Count < most)
            {
                _left--;
                Submit(node);
            }

            loop.Submit();
            if (loop.Poll() == 0 && _free.Count < _slots.Length)
            {
                loop.Wait();
            }
        }
    }

    private void Close(IoLoop loop, IBlockNode node)
    {
        try
        {
            node.FlushAndClose(loop);
            IsClosed = true;
        }
        catch (BlockException) when (load.MayFail)
        {
            // it said so
        }
    }

    private void Submit(IBlockNode node)
    {
        Slot slot = _slots[_free.Peek()];
        BlockKind kind = _random.Next(20) switch
        {
            < 7 => BlockKind.Write,
            < 13 => BlockKind.Read,
            < 16 => BlockKind.WriteZeroes,
            < 18 => BlockKind.Discard,
            _ => BlockKind.Flush,
        };
        if (kind == BlockKind.Flush)
        {
            slot.Covers = model.FlushBegins();
            slot.Request.Prepare(kind);
        }
        else if (!Prepare(slot, kind))
        {
            return; // another request has the range
        }

        _free.Pop();
        node.Submit(slot.Request);
    }

    private bool Prepare(Slot slot, BlockKind kind)
    {
        bool transfers = kind is BlockKind.Read or BlockKind.Write;
        (ulong from, ulong to) = load.Places[_random.Next(load.Places.Count)];
        ulong sectors = (to - from) / Sector, most = Math.Min(sectors, transfers ? (ulong)(Workload.LongestTransfer / Sector) : 8192);
        ulong at = from / Sector, length = 1 + (ulong)_random.NextInt64((long)Longest(most));
        at += (ulong)_random.NextInt64((long)(sectors - length + 1));
        int granule = 1 << _random.Next(8); // many requests begin and end where blocks and clusters do
        at = _random.Next(3) == 0 ? at : Math.Max(at / (ulong)granule * (ulong)granule, from / Sector);
        (at, length) = (at * Sector, length * Sector);
        if (!model.TryEnter(at, length))
        {
            return false;
        }

        BlockFlags flags = kind == BlockKind.WriteZeroes && _random.Next(2) == 0 ? BlockFlags.MayUnmap : BlockFlags.None;
        flags |= kind is BlockKind.Write or BlockKind.WriteZeroes && _random.Next(12) == 0 ? BlockFlags.Fua : BlockFlags.None;
        slot.Request.Prepare(kind, at, (uint)length, flags);
        if (transfers)
        {
            slot.SetData((int)length, _random.Next(4) == 0 ? _random.Next(Slack) : 0, _random.Next(3) == 0);
        }

        if (kind != BlockKind.Read)
        {
            uint stamp = kind == BlockKind.Write ? model.NextStamp() : 0;
            if (kind == BlockKind.Write)
            {
                DiskModel.Fill(slot.Data((uint)length), at / Sector, stamp);
            }

            model.Submitted(kind, at, length, stamp);
        }

        return true;
    }

    // Mostly a few sectors, now and then some clusters.
    private ulong Longest(ulong most)
    {
        ulong longest = _random.Next(6) switch { 0 => 1, 1 or 2 => 16, 3 or 4 => 160, _ => most };
        return Math.Min(longest, most);
    }

    private sealed class Slot(BlockRequest request) : IDisposable
    {
        private readonly NativeArray<byte> _memory = new(Workload.LongestTransfer + Slack, 4096);
        private readonly NativeArray<IoVector> _vectors = new(3);
        private int _shift;

        public BlockRequest Request { get; } = request;

        public long Covers;

        public Span<byte> Data(uint length) => _memory.Span.Slice(_shift, (int)length);

        // In one piece or in three, which are not whole sectors.
        public void SetData(int length, int shift, bool inPieces)
        {
            _shift = shift;
            int first = inPieces ? length / 3 : length, second = inPieces ? length / 2 : length;
            _vectors.Span[0] = new IoVector(_memory.AddressOf(shift), (nuint)first);
            if (inPieces)
            {
                _vectors.Span[1] = new IoVector(_memory.AddressOf(shift + first), (nuint)(second - first));
                _vectors.Span[2] = new IoVector(_memory.AddressOf(shift + second), (nuint)(length - second));
            }

            Request.SetData(_vectors.Span[..(inPieces ? 3 : 1)]);
        }

        public void Dispose()
        {
            _memory.Dispose();
            _vectors.Dispose();
        }
    }
}
