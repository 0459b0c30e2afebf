using Vmm.Testing;
using System.Runtime.InteropServices;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Interop;

namespace Vmm.Memory.Tests;

/// <summary>GuestMemory against the simplest model: an array per region and a loop over them.</summary>
public sealed unsafe class GuestMemoryTests : IDisposable
{
    // Two regions that touch, a hole, and one that ends at the top of the address space.
    private static readonly (ulong Start, int Length)[] s_layout =
    [
        (0x1000, 0x800), (0x1800, 0x400), (0x4000, 0x1000), (ulong.MaxValue - 0xfff, 0x1000)
    ];

    private readonly List<nint> _blocks = [];
    private readonly GuestMemory _memory;
    private readonly byte[][] _model = [.. s_layout.Select(r => new byte[r.Length])];

    public GuestMemoryTests()
    {
        List<GuestRegion> regions = [];
        foreach ((ulong start, int length) in s_layout)
        {
            nint block = (nint)NativeMemory.AllocZeroed((nuint)length);
            _blocks.Add(block);
            regions.Add(new GuestRegion(new GuestAddress(start), new ByteSize((ulong)length), block));
        }

        regions.Reverse();
        _memory = new GuestMemory(regions);
    }

    public void Dispose() => _blocks.ForEach(b => NativeMemory.Free((void*)b));

    [Fact]
    public void Every_access_answers_as_a_plain_array_would()
    {
        Random random = new(11);
        byte[] buffer = new byte[0x1100], expected = new byte[0x1100];
        for (int i = 0; i < 100_000; i++)
        {
            GuestAddress at = new(Address(random));
            int length = random.Next(8) == 0 ? random.Next(0x1100) : random.Next(12);
            bool inside = Find(at.Value, length, out Span<byte> model);
            switch (random.Next(5))
            {
                case 0:
                    random.NextBytes(buffer.AsSpan(0, length));
                    Assert.Equal(inside, _memory.TryWrite(at, buffer.AsSpan(0, length)));
                    buffer.AsSpan(0, inside ? length : 0).CopyTo(model);
                    break;
                case 1:
                    Array.Fill(buffer, (byte)0xAB);
                    Assert.Equal(inside, _memory.TryRead(at, buffer.AsSpan(0, length)));
                    expected.AsSpan().Fill(0xAB);
                    model.CopyTo(expected);
                    Assert.True(buffer.AsSpan().SequenceEqual(expected), $"read {length} at {at}");
                    break;
                case 2:
                    ulong value = (ulong)random.NextInt64();
                    bool fits = Find(at.Value, 8, out Span<byte> eight);
                    Assert.Equal(fits, _memory.TryWrite(at, value));
                    if (fits)
                    {
                        BitConverter.TryWriteBytes(eight, value);
                    }

                    break;
                case 3:
                    bool four = Find(at.Value, 4, out Span<byte> bytes);
                    Assert.Equal(four, _memory.TryRead(at, out uint read));
                    Assert.Equal(four ? BitConverter.ToUInt32(bytes) : 0, read);
                    break;
                default:
                    Assert.Equal(inside, _memory.TryGetSpan(at, length, out Span<byte> span));
                    Assert.Equal(inside, _memory.Contains(at, (ulong)length));
                    Assert.True(span.SequenceEqual(model), $"span {length} at {at}");
                    break;
            }
        }

        for (int r = 0; r < s_layout.Length; r++)
        {
            Assert.True(new ReadOnlySpan<byte>((void*)_blocks[r], s_layout[r].Length).SequenceEqual(_model[r]));
        }
    }

    [Fact]
    public void Any_address_and_length_end_in_an_answer_inside_a_region_or_none() =>
        Check.QuickThrowOnFailure(Prop.ForAll(ArbMap.Default.ArbFor<ulong>(), ArbMap.Default.ArbFor<ulong>(), (at, length) =>
        {
            bool found = _memory.TryGetHostAddress(new GuestAddress(at), length, out nint host);
            int region = Array.FindIndex(
                s_layout, r => at >= r.Start && at - r.Start < (ulong)r.Length && length <= (ulong)r.Length - (at - r.Start));
            return found == region >= 0 && (!found || host == _blocks[region] + (nint)(at - s_layout[region].Start));
        }));

    [Theory]
    [InlineData(0xfffUL, 1UL, false)]
    [InlineData(0xfffUL, 2UL, false)]
    [InlineData(0x1000UL, 0UL, true)]
    [InlineData(0x1000UL, 0x800UL, true)]
    [InlineData(0x17ffUL, 1UL, true)]
    [InlineData(0x17ffUL, 2UL, false)] // Two regions that touch for the guest but not here: no access spans them.
    [InlineData(0x1bffUL, 1UL, true)]
    [InlineData(0x1c00UL, 0UL, false)]
    [InlineData(0x1000UL, ulong.MaxValue, false)]
    [InlineData(ulong.MaxValue, 1UL, true)]
    [InlineData(ulong.MaxValue, 2UL, false)]
    [InlineData(ulong.MaxValue, ulong.MaxValue, false)]
    [InlineData(0UL, 0UL, false)]
    public void Edges_of_regions_are_exact(ulong at, ulong length, bool inside) =>
        Assert.Equal(inside, _memory.Contains(new GuestAddress(at), length));

    [Theory]
    [InlineData(0x1000UL, 0x1000UL, 0x1fffUL, 0x10UL)]
    [InlineData(0x1000UL, 0x1000UL, 0x1000UL, 0x1000UL)]
    [InlineData(0x1000UL, 0UL, 0x2000UL, 0x10UL)]
    [InlineData(0x1000UL, 0x10UL, ulong.MaxValue, 2UL)]
    public void Region_tables_that_overlap_wrap_or_are_empty_are_refused(ulong start1, ulong length1, ulong start2, ulong length2) =>
        Assert.Throws<ArgumentException>(
            () => new GuestMemory([new(new(start1), new ByteSize(length1), 0), new(new(start2), new ByteSize(length2), 0)]));

    [Fact]
    public void A_new_region_table_takes_over_whole()
    {
        _memory.ReplaceRegions([new GuestRegion(new GuestAddress(0x100000), new ByteSize(0x800), _blocks[0])]);
        Assert.False(_memory.Contains(new GuestAddress(0x1000), 1));
        Assert.True(_memory.Contains(new GuestAddress(0x100000), 0x800));
        Assert.Equal(0x800UL, _memory.Total.Bytes);
    }

    [Fact]
    public void Guest_made_sums_never_wrap_unnoticed() =>
        Check.QuickThrowOnFailure(Prop.ForAll(ArbMap.Default.ArbFor<ulong>(), ArbMap.Default.ArbFor<ulong>(), (at, bytes) =>
            new GuestAddress(ulong.MaxValue - at).TryAdd(bytes, out GuestAddress sum) == bytes <= at
            && (bytes > at || sum.Value == ulong.MaxValue - at + bytes)));

    private static ulong Address(Random random)
    {
        (ulong start, int length) = s_layout[random.Next(s_layout.Length)];
        return random.Next(3) switch
        {
            0 => unchecked(start + (ulong)random.Next(-16, 16)),
            1 => unchecked(start + (ulong)length + (ulong)random.Next(-16, 16)),
            _ => start + (ulong)random.Next(length),
        };
    }

    private bool Find(ulong at, int length, out Span<byte> bytes)
    {
        for (int r = 0; r < s_layout.Length; r++)
        {
            ulong offset = unchecked(at - s_layout[r].Start);
            if (at >= s_layout[r].Start && offset < (ulong)s_layout[r].Length && (ulong)length <= (ulong)s_layout[r].Length - offset)
            {
                bytes = _model[r].AsSpan((int)offset, length);
                return true;
            }
        }

        bytes = default;
        return false;
    }

    [Fact]
    public void Discard_takes_whole_host_pages_inside_ram_and_nothing_else()
    {
        using VnodeMemory ram = VnodeMemory.Create(
            new VnodePlacement(0, new ByteSize((ulong)(1 << 20)), new ByteSize(4096), null, []), HostTopology.Unknown);
        GuestMemory memory =
            new([ram.Region(new(0x10000), new ByteSize(0x40000), 0), ram.Region(new(0x50000), new ByteSize(0x40000), 0x40000)]);
        Assert.True(memory.TryGetSpan(new(0x10000), 0x40000, out Span<byte> first));
        Assert.True(memory.TryGetSpan(new(0x50000), 0x40000, out Span<byte> second));
        first.Fill(1);
        second.Fill(2);
        Assert.Equal(0, memory.Discard(new(0x4F001), 0x2FFE, out ulong discarded)); // over the border, with ragged ends
        Assert.Equal(0x1000UL, discarded);
        Assert.Equal((1, 0, 0, 2), (first[^1], second[0], second[0xFFF], second[0x1000]));
        Assert.Equal(0, memory.Discard(new(0), ulong.MaxValue, out discarded));
        Assert.Equal(0x80000UL, discarded);
        Assert.Equal(0, memory.Discard(new(ulong.MaxValue), ulong.MaxValue, out discarded));
        Assert.Equal(0UL, discarded);
        Assert.Equal(0, memory.Discard(new(0x10000), 0, out discarded));
        Assert.Equal(0UL, discarded);
        Assert.Equal(-1, first.IndexOfAnyExcept((byte)0));
        GuestMemory huge =
            new([new GuestRegion(new(0), new ByteSize(0x80000), ram.Region(new(0), new ByteSize(0x80000), 0).HostAddress, 0, 0x80000)]);
        Assert.Equal(0, huge.Discard(new(0x1000), 0x70000, out discarded)); // no whole page of that size
        Assert.Equal(0UL, discarded);
    }

    [Fact]
    public void Discard_tells_what_the_kernel_refuses()
    {
        using AnonymousMapping mapping = new(8192);
        GuestMemory memory = new([new GuestRegion(new(0), new ByteSize(8192), mapping.Address)]);
        Assert.Equal(22, memory.Discard(new(0), 8192, out ulong discarded)); // EINVAL: not a shared mapping
        Assert.Equal(0UL, discarded);
    }
}
