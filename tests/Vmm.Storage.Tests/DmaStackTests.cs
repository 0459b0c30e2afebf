using Vmm.Interop;
using Vmm.Io;
using Vmm.Memory;
using Vmm.Testing;

namespace Vmm.Storage.Tests;

/// <summary>
/// Every stack behind a <see cref="DmaFilter"/>, as a device has it: requests name guest pages, which are theirs from there to their end
/// and no longer.
/// </summary>
public sealed class DmaStackTests : IDisposable
{
    private const int Size = (4 << 20) + 512, Ram = 1 << 20, Depth = 6;
    private const ulong Start = 0x10_0000;

    private readonly NativeArray<byte> _ram = new(Ram, 4096);
    private readonly GuestMemory _memory;

    public DmaStackTests() =>
        _memory = new GuestMemory([new GuestRegion(new GuestAddress(Start), new ByteSize(Ram), _ram.AddressOf(0))]);

    public static TheoryData<string> Stacks => Stack.All;

    public void Dispose() => _ram.Dispose();

    /// <summary>
    /// Reads, writes, zeros and flushes of several ranges, several at once, agree with a model; no lease outlives its request.
    /// </summary>
    [Theory]
    [MemberData(nameof(Stacks))]
    public void Requests_with_leases_agree_with_a_model(string name)
    {
        using Stack stack = new(name, Size);
        using FrontEnd front = new(_memory.Dma, loop => stack.CreateNode(loop, Depth));
        byte[] model = new byte[Size], back = new byte[Size];
        Random random = new(7);
        List<(int Memory, int Disk, int Length)> reads = [];
        for (int round = 0; round < 40; round++)
        {
            reads.Clear();
            for (int i = 0; i < Depth; i++)
            {
                // A part of the disk and of the memory for each, so that what they do does not depend on their order.
                int part = Size / Depth / 512 * 512, memory = Ram / Depth / 4096 * 4096, length = random.Next(1, 150) * 512;
                int at = (i * part) + (random.Next((part - length) / 512) * 512), from = (i * memory) + random.Next(3);
                BlockKind kind = (BlockKind)random.Next((int)BlockKind.Read, (int)BlockKind.WriteZeroes + 1);
                kind = kind == BlockKind.Discard ? BlockKind.Write : kind;
                Span<byte> data = _ram.Span.Slice(from, length), disk = model.AsSpan(at, length);
                random.NextBytes(data);
                if (kind == BlockKind.Write)
                {
                    data.CopyTo(disk);
                }
                else if (kind == BlockKind.Read)
                {
                    reads.Add((from, at, length));
                }
                else if (kind == BlockKind.WriteZeroes)
                {
                    disk.Clear();
                }

                front.Submit(i, kind, at, length, Start + (ulong)from, cut: random.Next(1, length));
            }

            front.Finish(expect: DiskStatus.Ok);
            foreach ((int from, int at, int length) in reads)
            {
                Assert.True(_ram.Span.Slice(from, length).SequenceEqual(model.AsSpan(at, length)));
            }
        }

        for (int at = 0; at < Size; at += Ram)
        {
            int length = Math.Min(Ram, Size - at);
            front.Submit(0, BlockKind.Read, at, length, Start, cut: 1);
            front.Finish(expect: DiskStatus.Ok);
            _ram.Span[..length].CopyTo(back.AsSpan(at));
        }

        Assert.True(back.AsSpan().SequenceEqual(model));
        stack.CloseBelow(front.Loop);
    }

    /// <summary>What is held before the filter has no pages; what is let go gets them, unless its memory went meanwhile.</summary>
    [Theory]
    [MemberData(nameof(Stacks))]
    public void A_held_request_has_no_lease_and_one_whose_memory_went_is_an_error(string name)
    {
        using Stack stack = new(name, Size);
        using FrontEnd front = new(_memory.Dma, loop => stack.CreateNode(loop, Depth));
        front.Router.Hold();
        front.Submit(0, BlockKind.Write, 0, 8192, Start, cut: 100);
        Assert.False(front.Lease(0).IsHeld);
        front.Router.Resume();
        front.Finish(expect: DiskStatus.Ok);
        front.Router.Hold();
        front.Submit(0, BlockKind.Read, 0, 8192, Start, cut: 100);
        front.Submit(1, BlockKind.Write, 8192, 8192, Start, cut: 100);
        _memory.Ram.ReplaceRegions([]);
        front.Router.Resume();
        front.Finish(expect: DiskStatus.IoError);
        stack.CloseBelow(front.Loop);
    }

    /// <summary>A request whose pages are away waits for them alone; the others go on.</summary>
    [Theory]
    [MemberData(nameof(Stacks))]
    public void A_request_whose_pages_are_away_waits_alone(string name)
    {
        using Stack stack = new(name, Size);
        using FrontEnd front = new(_memory.Dma, loop => stack.CreateNode(loop, Depth));
        FakePager pager = new(_memory);
        pager.PageOut(Start, 4096);
        _ram.Span[..4096].Fill(1);
        front.Submit(0, BlockKind.Write, 0, 8192, Start, cut: 4096);
        for (int i = 1; i < Depth; i++)
        {
            front.Submit(i, BlockKind.Write, i * 8192, 8192, Start + 8192, cut: 4096);
        }

        front.RunUntil(left: 1);
        Assert.Equal((1, false), (pager.Waiting, front.Lease(0).IsHeld));
        Thread paging = new(pager.PageIn);
        paging.Start();
        front.Finish(expect: DiskStatus.Ok);
        paging.Join();
        _ram.Span.Clear();
        front.Submit(0, BlockKind.Read, 0, 4096, Start, cut: 512);
        front.Finish(expect: DiskStatus.Ok);
        Assert.Equal(-1, _ram.Span[..4096].IndexOfAnyExcept((byte)1));
        stack.CloseBelow(front.Loop);
    }

    // A router and a filter before a stack, and requests with leases.
    private sealed class FrontEnd : IBlockOwner, IDisposable
    {
        private readonly BlockRequest[] _requests = new BlockRequest[Depth];
        private readonly PageLease[] _leases = new PageLease[Depth];
        private readonly DiskStatus?[] _ended = new DiskStatus?[Depth];
        private readonly IBlockNode _below;
        private int _inFlight;

        public FrontEnd(DmaSpace memory, Func<IoLoop, IBlockNode> stack)
        {
            _below = stack(Loop);
            Router = new RequestRouter(Loop, new DmaFilter(memory, _below));
            for (int i = 0; i < Depth; i++)
            {
                _leases[i] = new PageLease(2);
                _requests[i] = new BlockRequest(this, i, _leases[i]);
                Loop.Add(_requests[i]);
            }
        }

        public IoLoop Loop { get; } = new();

        public RequestRouter Router { get; }

        public PageLease Lease(int index) => _leases[index];

        public void Completed(BlockRequest request, DiskStatus status)
        {
            Assert.False(_leases[request.Token].IsHeld);
            _ended[request.Token] = status;
            _inFlight--;
        }

        public void Submit(int index, BlockKind kind, int at, int length, ulong memory, int cut)
        {
            BlockRequest request = _requests[index];
            _ended[index] = null;
            _inFlight++;
            bool moves = kind is BlockKind.Read or BlockKind.Write, ranged = kind != BlockKind.Flush;
            request.Prepare(kind, ranged ? (ulong)at : 0, ranged ? (uint)length : 0);
            _leases[index].Forget();
            if (moves)
            {
                Assert.True(_leases[index].TryAdd(new GuestRange(new GuestAddress(memory), (uint)cut)));
                Assert.True(_leases[index].TryAdd(new GuestRange(new GuestAddress(memory + (ulong)cut), (uint)(length - cut))));
            }

            Router.Submit(request);
        }

        public void RunUntil(int left)
        {
            Loop.Submit();
            while (_inFlight > left)
            {
                if (Loop.Poll() == 0 && _inFlight > left)
                {
                    Loop.Wait();
                }
            }
        }

        public void Finish(DiskStatus expect)
        {
            RunUntil(left: 0);
            Assert.All(_ended, status => Assert.True(status is null || status == expect, $"{status}"));
            Array.Clear(_ended);
        }

        public void Dispose()
        {
            Router.Dispose();
            _below.Dispose();
            Loop.Dispose();
        }
    }
}
