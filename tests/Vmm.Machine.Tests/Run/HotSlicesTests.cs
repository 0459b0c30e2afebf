using Vmm.Machine.Ram;
using Vmm.Memory;

namespace Vmm.Machine.Tests.Run;

/// <summary>Memory that comes and goes, without KVM: what devices see, and what the host gets back.</summary>
public sealed class HotSlicesTests : IDisposable
{
    private const ulong Block = 2 << 20, Blocks = 256, Slice = 4 * Block;
    private static readonly GuestAddress s_start = new(4UL << 30);
    private readonly VnodeMemory _fixed = Memory(ByteSize.MiB(2)), _hot = Memory(new ByteSize(Blocks * Block));
    private readonly GuestMemory _memory;
    private readonly Slots _slots = new();
    private readonly HotMemory _plug;

    public HotSlicesTests()
    {
        _memory = new GuestMemory([_fixed.Region(new GuestAddress(0), ByteSize.MiB(2), 0)]);
        _plug = new HotMemory(new MemoryMapOwner(_memory.Ram, _slots), _hot, s_start, new ByteSize(Block));
    }

    public void Dispose()
    {
        _fixed.Dispose();
        _hot.Dispose();
    }

    [Fact]
    public void Devices_see_the_slices_with_a_plugged_block_and_slots_stay()
    {
        Random random = new(5);
        bool[] plugged = new bool[Blocks];
        for (int step = 0; step < 1000; step++)
        {
            int first = random.Next((int)Blocks), count = 1;
            while (first + count < (int)Blocks && count < 20 && plugged[first + count] == plugged[first] && random.Next(10) > 0)
            {
                count++;
            }

            bool plug = !plugged[first];
            _slots.Refuses = plug && random.Next(6) == 0;
            if (!plug)
            {
                _plug.Unplug((ulong)first * Block, (ulong)count * Block);
            }

            if (!plug || _plug.TryPlug((ulong)first * Block, (ulong)count * Block))
            {
                plugged.AsSpan(first, count).Fill(plug);
            }

            for (ulong slice = 0; slice < Blocks * Block / Slice; slice++)
            {
                bool any = plugged.AsSpan((int)(slice * 4), 4).Contains(true);
                Assert.Equal(any, _memory.Contains(s_start + (slice * Slice), Slice));
                Assert.True(!any || _slots.Now.Contains((s_start + (slice * Slice)).Value));
            }
        }

        Assert.Equal(0, _slots.Removed);
    }

    [Fact]
    public void Blocks_that_are_kept_come_back_as_zeros_or_not_at_all()
    {
        Assert.True(_plug.TryPlug(0, 2 * Block));
        Assert.True(_memory.TryWrite(s_start + Block, 7));
        using (_memory.Ram.Discards.Inhibit("test"))
        {
            _plug.Unplug(0, 2 * Block);
            Assert.Equal(2 * (long)Block, _memory.Ram.Discards.KeptBytes);
            Assert.False(_memory.Contains(s_start, 1));
            Assert.False(_plug.TryPlug(Block, Block)); // it would still have its content
            Assert.True(_plug.TryPlug(2 * Block, Block)); // this one was never given up
        }

        Assert.True(_plug.TryPlug(Block, Block));
        Assert.True(_memory.TryRead(s_start + Block, out int value));
        Assert.Equal(0, value);
    }

    private static VnodeMemory Memory(ByteSize size) =>
        VnodeMemory.Create(new VnodePlacement(0, size, new ByteSize(4096), null, []), HostTopology.Unknown);

    private sealed class Slots : IMemorySlots
    {
        public void ChangeLog(in MemorySlot slot) { }

        public void TakeLog(in MemorySlot slot, Span<ulong> bitmap) => bitmap.Clear();

        internal HashSet<ulong> Now { get; } = [];

        internal bool Refuses { get; set; }

        internal int Removed { get; private set; }

        public void Set(in MemorySlot slot)
        {
            if (Refuses)
            {
                throw new Vmm.Interop.KernelException("no slot", 12);
            }

            Assert.True(Now.Add(slot.Region.Start.Value));
        }

        public void Remove(in MemorySlot slot) => Removed++;
    }
}
