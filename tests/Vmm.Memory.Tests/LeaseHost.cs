using System.Runtime.InteropServices;

namespace Vmm.Memory.Tests;

/// <summary>Blocks of this process that stand for guest RAM, and a waiter that must not be called.</summary>
internal sealed unsafe class LeaseHost : IDisposable, IPageWaiter
{
    private readonly List<nint> _blocks = [];

    public void Dispose() => _blocks.ForEach(b => NativeMemory.AlignedFree((void*)b));

    public void PagesReady(PageLease lease) => Assert.Fail("every page is there");

    /// <summary>Regions at these addresses, each in a block of its own, or one after the other in one block.</summary>
    public GuestRegion[] Regions(bool together, params (ulong Start, int Length)[] layout)
    {
        nint block = together ? Block(layout.Sum(r => r.Length)) : 0;
        List<GuestRegion> regions = [];
        foreach ((ulong start, int length) in layout)
        {
            nint host = together ? block : Block(length);
            regions.Add(new GuestRegion(new GuestAddress(start), new ByteSize((ulong)length), host));
            block += length;
        }

        return [.. regions];
    }

    private nint Block(int length)
    {
        nint block = (nint)NativeMemory.AlignedAlloc((nuint)length, 4096);
        new Span<byte>((void*)block, length).Clear();
        _blocks.Add(block);
        return block;
    }
}
