namespace Vmm.Memory.Tests;

/// <summary>A ring by fixed pointers against the layout of virtio 1.2 section 2.7.</summary>
public sealed class RingViewTests : IDisposable
{
    private static readonly RingParts s_parts = new(8, new(0x1000), new(0x1100), new(0x2204));
    private readonly LeaseHost _host = new();
    private readonly GuestMemory _memory;

    public RingViewTests() => _memory = new GuestMemory(_host.Regions(together: false, (0x1000, 0x1000), (0x2000, 0x1000)));

    public void Dispose() => _host.Dispose();

    [Fact]
    public void It_reads_what_the_driver_writes()
    {
        RingView ring = Ring();
        Put(0x1100, (ushort)0x1234);
        Put(0x1102, (ushort)0xfffe);
        Put(0x1104 + (2 * 7), (ushort)0xabcd);
        Put(0x1104 + (2 * 8), (ushort)0x4321);
        Put(0x1000 + (16 * 5), 0x1122334455667788UL);
        Put(0x1008 + (16 * 5), 0x99aabbccU);
        Put(0x100c + (16 * 5), (ushort)0x0102);
        Put(0x100e + (16 * 5), (ushort)0x0304);
        Assert.True(ring.TryReadAvailableFlags(out ushort flags));
        Assert.True(ring.TryReadAvailableIndex(out ushort index));
        Assert.True(ring.TryReadAvailable(0xffff, out ushort head));
        Assert.True(ring.TryReadUsedEvent(out ushort wanted));
        Assert.True(ring.TryReadDescriptor(5, out RingDescriptor descriptor));
        Assert.Equal((0x1234, 0xfffe, 0xabcd, 0x4321), (flags, index, head, wanted));
        Assert.Equal(new RingDescriptor(0x1122334455667788, 0x99aabbcc, 0x0102, 0x0304), descriptor);
        Assert.False(ring.TryReadDescriptor(8, out descriptor));
        Assert.Equal(default, descriptor);
    }

    [Fact]
    public void The_driver_reads_what_it_writes_and_the_pages_are_marked()
    {
        RingView ring = Ring();
        _memory.Ram.StartTrackingWrites();
        Assert.True(ring.TryReadAvailableIndex(out _));
        Assert.Equal(0UL, Written());
        Assert.True(ring.TryWriteUsed(0xfffe, 0x8001, 0xdeadbeef));
        Assert.Equal(1UL << 1, Written());
        Assert.True(ring.TryWriteUsedIndex(0xffff));
        Assert.Equal(1UL << 1, Written());
        Assert.True(ring.TryWriteUsedFlags(3));
        Assert.Equal(1UL << 1, Written());
        Assert.True(ring.TryWriteAvailableEvent(0x7654));
        Assert.Equal(1UL << 1, Written());
        Assert.Equal((3U, 0xffffU), (Get<ushort>(0x2204), Get<ushort>(0x2206)));
        Assert.Equal((0x8001U, 0xdeadbeefU), (Get<uint>(0x2208 + (8 * 6)), Get<uint>(0x220c + (8 * 6))));
        Assert.Equal(0x7654, Get<ushort>(0x2208 + (8 * 8)));
    }

    [Fact]
    public void A_ring_that_is_not_aligned_or_not_in_RAM_is_no_ring()
    {
        foreach (RingParts parts in new[]
        {
            s_parts with { Descriptors = new(0x1008) }, s_parts with { Available = new(0x1101) }, s_parts with { Used = new(0x2202) },
            s_parts with { Descriptors = new(0x1f90) }, s_parts with { Available = new(0x1fec) }, s_parts with { Used = new(0x2fbc) },
            s_parts with { Used = new(0xffff_ffff_ffff_fffc) },
        })
        {
            Assert.False(_memory.Dma.TryAcquireRing(parts, out RingView? none), parts.ToString());
            Assert.Null(none);
        }

        Assert.True(
            _memory.Dma.TryAcquireRing(s_parts with { Descriptors = new(0x1f80), Available = new(0x2fea), Used = new(0x2f00) }, out _));
        Assert.Throws<ArgumentOutOfRangeException>(() => _memory.Dma.TryAcquireRing(s_parts with { Size = 0 }, out _));
        Assert.Throws<ArgumentOutOfRangeException>(() => _memory.Dma.TryAcquireRing(s_parts with { Size = 6 }, out _));
    }

    [Fact]
    public void It_fails_while_the_guest_has_unplugged_the_memory_under_it_and_touches_nothing()
    {
        RingView ring = Ring();
        GuestRegion[] both = _memory.RegionSpan.ToArray();
        Assert.True(ring.TryWriteUsedIndex(1));
        _memory.ReplaceRegions([both[0]]);
        Assert.False(ring.TryReadAvailableIndex(out _));
        Assert.False(ring.TryReadDescriptor(0, out _));
        Assert.False(ring.TryWriteUsedIndex(2));
        Assert.False(ring.TryWriteUsed(0, 1, 1));
        _memory.ReplaceRegions(both);
        Assert.Equal(1, Get<ushort>(0x2206));
        Assert.True(ring.TryWriteUsedIndex(3));
        Assert.Equal(3, Get<ushort>(0x2206));
        // Another mapping of the same guest address is followed.
        _memory.ReplaceRegions([both[0], .. _host.Regions(together: false, (0x2000, 0x1000))]);
        Assert.True(ring.TryWriteUsedIndex(4));
        Assert.Equal(4, Get<ushort>(0x2206));
    }

    private RingView Ring()
    {
        Assert.True(_memory.Dma.TryAcquireRing(s_parts, out RingView? ring));
        return ring;
    }

    private ulong Written()
    {
        ulong[] bitmap = new ulong[1];
        _memory.Ram.CollectWrittenPages(new(0x1000), 2, bitmap);
        return bitmap[0];
    }

    private void Put<T>(ulong at, T value)
        where T : unmanaged => Assert.True(_memory.TryWrite(new GuestAddress(at), value));

    private T Get<T>(ulong at)
        where T : unmanaged
    {
        Assert.True(_memory.TryRead(new GuestAddress(at), out T value));
        return value;
    }
}
