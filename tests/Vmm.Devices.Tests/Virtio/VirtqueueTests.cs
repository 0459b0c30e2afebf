using System.Globalization;
using Vmm.Devices.Virtio;

namespace Vmm.Devices.Tests.Virtio;

public sealed class VirtqueueTests : IDisposable
{
    private readonly RingRam _ram = new();

    public void Dispose() => _ram.Dispose();

    [Theory]
    [InlineData(0, 0x1000UL, 0x2000UL, 0x3000UL)]
    [InlineData(3, 0x1000UL, 0x2000UL, 0x3000UL)]
    [InlineData(8, 0x1008UL, 0x2000UL, 0x3000UL)]
    [InlineData(8, 0x1000UL, 0x2001UL, 0x3000UL)]
    [InlineData(8, 0x1000UL, 0x2000UL, 0x3002UL)]
    [InlineData(8, 0xFFFF0UL, 0x2000UL, 0x3000UL)]
    [InlineData(8, 0x1000UL, 0xFFFFFFFFFFFFFFFEUL, 0x3000UL)]
    [InlineData(8, 0x1000UL, 0x2000UL, 0x100000UL)]
    public void TryCreate_refuses_an_impossible_layout_with_a_reason(int size, ulong table, ulong avail, ulong used)
    {
        Assert.False(Virtqueue.TryCreate(
            _ram.Memory, new((ushort)size, new(table), new(avail), new(used)), 0, out Virtqueue? queue, out string? reason));
        Assert.Null(queue);
        Assert.False(string.IsNullOrEmpty(reason));
    }

    [Fact]
    public void TryTake_gives_each_chain_once_and_in_order_across_the_index_wrap()
    {
        Virtqueue queue = _ram.Queue();
        queue.Restore(65530, 65530);
        ushort available = 65530;
        _ram.Put(RingRam.Avail + 2, available);
        for (int i = 0; i < 20; i++)
        {
            Assert.Equal(TakeResult.Empty, queue.TryTake(out _));
            ushort head = (ushort)(i % _ram.Size);
            _ram.Put(RingRam.Avail + 4 + (2UL * (ushort)(available % _ram.Size)), head);
            _ram.Put(RingRam.Avail + 2, ++available);
            Assert.Equal(TakeResult.Taken, queue.TryTake(out ushort taken));
            Assert.Equal(head, taken);
        }
    }

    [Fact]
    public void TryTake_refuses_an_available_index_that_jumps_over_the_queue_size()
    {
        Virtqueue queue = _ram.Queue();
        _ram.Put(RingRam.Avail + 2, (ushort)(_ram.Size + 1));
        Assert.Equal(TakeResult.Malformed, queue.TryTake(out _));
        _ram.Put(RingRam.Avail + 2, _ram.Size);
        Assert.Equal(TakeResult.Taken, queue.TryTake(out _));
    }

    [Fact]
    public void TryTake_refuses_a_head_outside_the_table()
    {
        Virtqueue queue = _ram.Queue();
        _ram.Put(RingRam.Avail + 4, _ram.Size);
        _ram.Put(RingRam.Avail + 2, 1);
        Assert.Equal(TakeResult.Malformed, queue.TryTake(out _));
    }

    [Fact]
    public void Complete_is_seen_by_the_driver_only_after_publish()
    {
        Virtqueue queue = _ram.Queue();
        queue.Complete(3, 77);
        Assert.Equal(0, _ram.Get(RingRam.Used + 2));
        Assert.True(queue.Publish());
        Assert.Equal(1, _ram.Get(RingRam.Used + 2));
        Assert.Equal(3, _ram.Get(RingRam.Used + 4));
        Assert.Equal(77, _ram.Get(RingRam.Used + 8));
        Assert.False(queue.Publish());
        _ram.Put(RingRam.Avail, 1); // VIRTQ_AVAIL_F_NO_INTERRUPT
        queue.Complete(4, 0);
        Assert.False(queue.Publish());
        Assert.Equal(2, _ram.Get(RingRam.Used + 2));
    }

    [Fact]
    public void Publish_with_event_index_interrupts_exactly_when_the_wanted_entry_was_passed()
    {
        Random random = new(1);
        Virtqueue queue = _ram.Queue(VirtioFeatures.EventIndex);
        for (int round = 0; round < 5000; round++)
        {
            ushort old = (ushort)random.Next(65536);
            int batch = random.Next(1, 9);
            ushort wanted = unchecked((ushort)(old + random.Next(-12, 13)));
            queue.Restore(0, old);
            _ram.Put(RingRam.Avail + 4 + (2UL * _ram.Size), wanted);
            bool passed = false;
            for (int i = 0; i < batch; i++)
            {
                passed |= unchecked((ushort)(old + i)) == wanted; // entry number "wanted" is one of those just completed
                queue.Complete(0, 0);
            }

            Assert.Equal(passed, queue.Publish());
        }
    }

    [Fact]
    public void EnableNotifications_tells_about_chains_that_came_meanwhile()
    {
        Virtqueue queue = _ram.Queue(0);
        queue.DisableNotifications();
        Assert.Equal(1, _ram.Get(RingRam.Used));
        Assert.False(queue.EnableNotifications());
        Assert.Equal(0, _ram.Get(RingRam.Used));
        queue.DisableNotifications();
        _ram.Put(RingRam.Avail + 2, 1);
        Assert.True(queue.EnableNotifications());
    }

    [Fact]
    public void The_data_path_allocates_nothing_per_chain()
    {
        Virtqueue queue = _ram.Queue();
        _ram.Descriptor(0, RingRam.Data, 16, RingRam.Next, 1);
        _ram.Descriptor(1, RingRam.Data, 16, RingRam.Write);
        ushort available = 0;
        Spin(queue, ref available, 100);
        long before = GC.GetAllocatedBytesForCurrentThread();
        int taken = Spin(queue, ref available, 1000);
        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        Assert.Equal(1000, taken);
        Assert.True(allocated < 1000, $"{allocated} bytes for 1000 chains");
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Random_ring_memory_never_throws_and_every_walk_ends_inside_ram()
    {
        int iterations = int.Parse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS") ?? "20000", CultureInfo.InvariantCulture);
        Random random = new(20);
        int buffers = 0;
        for (int i = 0; i < iterations; i++)
        {
            random.NextBytes(_ram.Ram.Slice((int)RingRam.Avail, 64));
            _ram.Put(RingRam.Avail + 2, (ushort)random.Next(_ram.Size + 2));
            for (int d = 0; d < _ram.Size; d++)
            {
                _ram.Put(RingRam.Avail + 4 + (2UL * (ushort)d), (ushort)random.Next(_ram.Size + 1));
                RandomDescriptor(random, d, RingRam.Table);
                RandomDescriptor(random, d, RingRam.Indirect);
            }

            Virtqueue queue = _ram.Queue((ulong)random.Next(4) << 28);
            while (queue.TryTake(out ushort head) == TakeResult.Taken)
            {
                ChainWalker walk = queue.Walk(head);
                int steps = 0;
                while (walk.MoveNext() == ChainStep.Buffer)
                {
                    buffers++;
                    Assert.True(++steps <= _ram.Size + 1);
                    Assert.True(walk.Current.Length > 0 && _ram.Memory.Contains(walk.Current.Address, walk.Current.Length));
                }

                queue.Complete(head, (uint)random.Next());
                queue.Publish();
            }
        }

        Assert.True(buffers > iterations / 10, "the fuzz reaches good buffers too");
    }

    private void RandomDescriptor(Random random, int index, ulong table)
    {
        ulong address = random.Next(6) switch
        {
            0 => (ulong)random.NextInt64(),
            1 => ulong.MaxValue - (ulong)random.Next(64),
            2 => RingRam.Indirect,
            _ => (ulong)random.Next(RingRam.Bytes)
        };
        uint length =
            random.Next(6) switch { 0 => 0, 1 => (uint)random.NextInt64(), 2 => 16u * (uint)random.Next(9), _ => (uint)random.Next(4096) };
        _ram.Descriptor(
            index, address, length, (ushort)random.Next(random.Next(4) == 0 ? 65536 : 8), (ushort)random.Next(_ram.Size + 1), table);
    }

    private int Spin(Virtqueue queue, ref ushort available, int chains)
    {
        int taken = 0;
        for (int i = 0; i < chains; i++)
        {
            _ram.Put(RingRam.Avail + 2, ++available);
            while (queue.TryTake(out ushort head) == TakeResult.Taken)
            {
                ChainWalker walk = queue.Walk(head);
                while (walk.MoveNext() == ChainStep.Buffer)
                {
                }

                queue.Complete(head, 16);
                queue.Publish();
                taken++;
            }
        }

        return taken;
    }
}
