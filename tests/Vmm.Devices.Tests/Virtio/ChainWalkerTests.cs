using Vmm.Devices.Virtio;

namespace Vmm.Devices.Tests.Virtio;

public sealed class ChainWalkerTests : IDisposable
{
    private readonly RingRam _ram = new();

    public void Dispose() => _ram.Dispose();

    [Fact]
    public void Walk_hands_out_the_buffers_of_a_chain_in_order()
    {
        _ram.Descriptor(2, RingRam.Data, 16, RingRam.Next, 5);
        _ram.Descriptor(5, RingRam.Data + 16, 32, RingRam.Next | RingRam.Write, 0);
        _ram.Descriptor(0, RingRam.Data + 64, 1, RingRam.Write);
        ChainWalker walk = _ram.Queue().Walk(2);
        Assert.Equal(ChainStep.Buffer, walk.MoveNext());
        Assert.Equal(new VirtioBuffer(new(RingRam.Data), 16, false), walk.Current);
        Assert.Equal(ChainStep.Buffer, walk.MoveNext());
        Assert.Equal(new VirtioBuffer(new(RingRam.Data + 16), 32, true), walk.Current);
        Assert.Equal(ChainStep.Buffer, walk.MoveNext());
        Assert.Equal(new VirtioBuffer(new(RingRam.Data + 64), 1, true), walk.Current);
        Assert.Equal(ChainStep.End, walk.MoveNext());
        Assert.Equal(ChainStep.End, walk.MoveNext());
    }

    [Fact]
    public void Walk_follows_an_indirect_table_after_direct_descriptors()
    {
        _ram.Descriptor(0, RingRam.Data, 4, RingRam.Next, 1);
        _ram.Descriptor(1, RingRam.Indirect, 32, RingRam.IsIndirect);
        _ram.Descriptor(0, RingRam.Data + 8, 8, RingRam.Next, 1, RingRam.Indirect);
        _ram.Descriptor(1, RingRam.Data + 16, 8, RingRam.Write, 0, RingRam.Indirect);
        Assert.Equal((3, ChainStep.End), Run(0));
    }

    [Fact]
    public void Walk_takes_a_full_length_indirect_table()
    {
        _ram.Descriptor(0, RingRam.Indirect, 16u * _ram.Size, RingRam.IsIndirect);
        for (int i = 0; i < _ram.Size; i++)
        {
            bool last = i == _ram.Size - 1;
            _ram.Descriptor(i, RingRam.Data, 1, last ? (ushort)0 : RingRam.Next, (ushort)(i + 1), RingRam.Indirect);
        }

        Assert.Equal((_ram.Size, ChainStep.End), Run(0));
    }

    [Fact]
    public void Walk_reports_malformed_when_chain_loops()
    {
        _ram.Descriptor(0, RingRam.Data, 1, RingRam.Next, 1);
        _ram.Descriptor(1, RingRam.Data, 1, RingRam.Next, 0);
        (int buffers, ChainStep end) = Run(0);
        Assert.Equal(ChainStep.Malformed, end);
        Assert.InRange(buffers, 2, _ram.Size + 1);
    }

    [Theory]
    [InlineData(0x100000UL, 1u)] // just past RAM
    [InlineData(0xFFFFFUL, 2u)] // over the end
    [InlineData(0xFFFFFFFFFFFFFFF0UL, 0x20u)] // wraps to 0x10
    [InlineData(0x8000UL, 0u)] // empty
    [InlineData(0x8000UL, 0xFFFFFFFFu)]
    public void Walk_refuses_a_buffer_that_is_empty_or_not_in_ram(ulong address, uint length)
    {
        _ram.Descriptor(0, address, length);
        Assert.Equal((0, ChainStep.Malformed), Run(0));
    }

    [Fact]
    public void Walk_refuses_a_next_index_outside_the_table()
    {
        _ram.Descriptor(0, RingRam.Data, 1, RingRam.Next, _ram.Size);
        Assert.Equal((1, ChainStep.Malformed), Run(0));
    }

    [Fact]
    public void Walk_refuses_readable_after_writable()
    {
        _ram.Descriptor(0, RingRam.Data, 1, RingRam.Write | RingRam.Next, 1);
        _ram.Descriptor(1, RingRam.Data, 1);
        Assert.Equal((1, ChainStep.Malformed), Run(0));
    }

    [Theory]
    [InlineData(RingRam.Indirect, 0u, 0)] // no entry
    [InlineData(RingRam.Indirect, 17u, 0)] // not whole entries
    [InlineData(RingRam.Indirect, 16u, 1)] // with NEXT
    [InlineData(0x100000UL, 16u, 0)] // outside RAM
    [InlineData(0xFFFFFFFFFFFFFFF0UL, 32u, 0)] // wraps
    public void Walk_refuses_a_bad_indirect_descriptor(ulong address, uint length, int extra)
    {
        _ram.Descriptor(0, RingRam.Data, 1, 0, 0, RingRam.Indirect);
        _ram.Descriptor(0, address, length, (ushort)(RingRam.IsIndirect | extra));
        Assert.Equal((0, ChainStep.Malformed), Run(0));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void Walk_refuses_a_nested_indirect_table(int entry)
    {
        _ram.Descriptor(0, RingRam.Indirect, 32, RingRam.IsIndirect);
        _ram.Descriptor(0, RingRam.Data, 1, RingRam.Next, 1, RingRam.Indirect);
        _ram.Descriptor(1, RingRam.Data, 1, 0, 0, RingRam.Indirect);
        Assert.Equal((2, ChainStep.End), Run(0));
        _ram.Descriptor(entry, RingRam.Indirect, 16, RingRam.IsIndirect, 0, RingRam.Indirect);
        Assert.Equal((entry, ChainStep.Malformed), Run(0));
    }

    [Fact]
    public void Walk_refuses_indirect_that_was_not_negotiated()
    {
        _ram.Descriptor(0, RingRam.Indirect, 16, RingRam.IsIndirect);
        _ram.Descriptor(0, RingRam.Data, 1, 0, 0, RingRam.Indirect);
        Assert.Equal((1, ChainStep.End), Run(0));
        Assert.Equal((0, ChainStep.Malformed), Run(0, features: 0));
    }

    private (int Buffers, ChainStep End) Run(ushort head, ulong features = VirtioFeatures.IndirectDescriptors)
    {
        ChainWalker walk = _ram.Queue(features).Walk(head);
        int buffers = 0;
        ChainStep step;
        while ((step = walk.MoveNext()) == ChainStep.Buffer)
        {
            Assert.True(++buffers <= _ram.Size + 1, "the walk does not end");
        }

        Assert.Equal(step, walk.MoveNext()); // the end is final
        return (buffers, step);
    }
}
