using Vmm.Testing;
using Vmm.Interop;

namespace Vmm.Memory.Tests;

/// <summary>A lease over ranges of guest memory.</summary>
public sealed class PageLeaseTests : IDisposable
{
    private readonly LeaseHost _host = new();
    private readonly GuestMemory _memory;

    public PageLeaseTests() => _memory = new GuestMemory([
        .. _host.Regions(together: true, (0x1000, 0x1000), (0x2000, 0x1000)),
        .. _host.Regions(together: false, (0x3000, 0x1000), (0x8000, 0x1000))]);

    public void Dispose() => _host.Dispose();

    [Fact]
    public void Ranges_are_acquired_exactly_when_each_is_RAM_that_is_contiguous_here()
    {
        Random random = new(16);
        PageLease lease = new(4);
        int ready = 0;
        for (int i = 0; i < 50_000; i++)
        {
            GuestRange[] ranges = [.. Enumerable.Range(0, random.Next(5)).Select(_ => Range(random))];
            bool all = ranges.All(r => _memory.Contains(r.Address, r.Length));
            Assert.Equal(all ? Acquired.Ready : Acquired.Outside, Acquire(lease, DmaAccess.Read, ranges));
            Assert.Equal(all, lease.IsHeld);
            Assert.Equal(all ? ranges.Length : 0, lease.Count);
            Assert.Equal(all ? ranges.Sum(r => r.Length) : 0, (long)lease.Length);
            for (int piece = 0; piece < lease.Count; piece++)
            {
                Assert.True(_memory.TryGetHostAddress(ranges[piece].Address, ranges[piece].Length, out nint address));
                Assert.Equal(new IoVector(address, ranges[piece].Length), lease.Vectors[piece]);
            }

            ready += all && ranges.Length > 1 ? 1 : 0;
            lease.Release();
        }

        Assert.InRange(ready, 1_000, 49_000);
    }

    [Fact]
    public void Copies_go_over_the_borders_of_pieces_as_if_they_were_one()
    {
        Random random = new(5);
        PageLease lease = new(3);
        GuestRange[] ranges = [new(new(0x1ff0), 0x23), new(new(0x8100), 0), new(new(0x3001), 0x41)];
        byte[] model = new byte[0x64], bytes = new byte[0x80], back = new byte[0x80];
        Assert.Equal(Acquired.Ready, Acquire(lease, DmaAccess.Write, ranges));
        for (int i = 0; i < 20_000; i++)
        {
            int position = random.Next(0x70), length = random.Next(0x80), fits = Math.Clamp(model.Length - position, 0, length);
            random.NextBytes(bytes);
            Assert.Equal(fits, lease.CopyFrom((ulong)position, bytes.AsSpan(0, length)));
            bytes.AsSpan(0, fits).CopyTo(model.AsSpan(Math.Min(position, model.Length)));
            Assert.Equal(model.Length, lease.CopyTo(0, back));
            Assert.True(back.AsSpan(0, model.Length).SequenceEqual(model));

            ulong value = (ulong)random.NextInt64();
            bool whole = position + 8 <= model.Length;
            Assert.Equal(whole, lease.TryWrite((ulong)position, value));
            Assert.Equal(whole, lease.TryRead((ulong)position, out ulong read));
            Assert.Equal(whole ? value : 0, read);
            lease.CopyTo(0, model);
        }

        Assert.True(model.AsSpan(0, 0x23).SequenceEqual(lease.Bytes(0)));
        Assert.Equal(0, lease.Bytes(1).Length);
        Assert.True(model.AsSpan(0x23).SequenceEqual(lease.Bytes(2)));
        Assert.Throws<ArgumentOutOfRangeException>(() => lease.Bytes(3).Length);
        Assert.Throws<ArgumentOutOfRangeException>(() => lease.Bytes(-1).Length);
    }

    [Fact]
    public void What_is_not_held_for_writing_refuses_writes_and_what_is_held_cannot_be_acquired_again()
    {
        PageLease lease = new(1);
        Assert.Throws<InvalidOperationException>(() => lease.TryWrite(0, 1));
        Assert.Equal(Acquired.Ready, Acquire(lease, DmaAccess.Read, new GuestRange(new(0x1000), 16)));
        Assert.Throws<InvalidOperationException>(() => lease.TryWrite(0, 1));
        Assert.Throws<InvalidOperationException>(() => lease.CopyFrom(0, [1]));
        Assert.Throws<InvalidOperationException>(() => Acquire(lease, DmaAccess.Write, new GuestRange(new(0x1000), 16)));
        lease.Release();
        lease.Release();
        Assert.Throws<ArgumentException>(() => Acquire(lease, DmaAccess.Write, new(new(0x1000), 1), new(new(0x1000), 1)));
        Assert.Equal(0, lease.Vectors.Length);
        Assert.Equal(Acquired.Ready, Acquire(lease, DmaAccess.Write, new GuestRange(new(0x1000), 16)));
        Assert.Equal(16, lease.Bytes(0).Length);
    }

    [Fact]
    public void A_transfer_allocates_nothing()
    {
        PageLease lease = new(2);
        _memory.Ram.StartTrackingWrites();
        Transfers(lease, 100);
        long before = GC.GetAllocatedBytesForCurrentThread();
        Transfers(lease, 10_000);
        Assert.Equal(before, GC.GetAllocatedBytesForCurrentThread());
    }

    private void Transfers(PageLease lease, int count)
    {
        for (int i = 0; i < count; i++)
        {
            _memory.Dma.TryAcquire([new(new(0x1000), 0x1800), new(new(0x8000), 0x1000)], DmaAccess.Write, lease, _host);
            lease.TryWrite(0x17fe, i);
            lease.Release();
        }
    }

    private Acquired Acquire(PageLease lease, DmaAccess access, params GuestRange[] ranges) =>
        _memory.Dma.TryAcquire(ranges, access, lease, _host);

    private static GuestRange Range(Random random) => random.Next(12) switch
    {
        0 => new(new((ulong)random.NextInt64()), (uint)random.Next()),
        1 => new(new(ulong.MaxValue - (ulong)random.Next(64)), (uint)random.Next(128)),
        2 => new(new(0x1000 + (ulong)random.Next(0x2000)), uint.MaxValue),
        < 6 => new(new(0x8000 + (ulong)random.Next(0xe00)), (uint)random.Next(0x300)),
        _ => new(new(0x1000 + (ulong)random.Next(0x2c00)), (uint)random.Next(0x600)),
    };
}
