using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Net;
using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Devices.Tests.Virtio.Net;

/// <summary>Handing rings to the kernel and taking them back, with a kernel that only takes notes.</summary>
public sealed class KernelPathTests
{
    private const ulong Out = QueueGuest.Data + 0x800000, Ctrl = QueueGuest.Data + 0xF00000;
    private const ulong Mergeable = 1 << 15, EventIndex = 1 << 29, Indirect = 1 << 28, Version1 = 1UL << 32, LogAll = 1 << 26;
    private static readonly RateLimit s_limit = new(0, 1_000_000, 0, 0);

    [Fact]
    public void A_driver_that_is_ready_gets_both_rings_served_and_a_reset_takes_them_back()
    {
        Kernel kernel = new();
        VirtioNet device = Device([kernel]);
        using QueueGuest guest = new(device, activate: false);
        guest.Activate(EventIndex | Version1);
        Assert.True(device.InKernel);
        Assert.Equal(guest.Features & Mergeable | EventIndex | Version1, kernel.Accepted);
        Assert.Equal([0, 1], kernel.Served.Order());
        VhostRegion region = Assert.Single(kernel.Memory);
        Assert.Equal((0UL, (ulong)QueueGuest.RamBytes), (region.GuestAddress, region.Length));
        for (int ring = 0; ring < 2; ring++)
        {
            Assert.Equal((QueueGuest.Size, (ushort)0), ((ushort)kernel.Rings[ring].Size, kernel.Rings[ring].Next));
            Assert.Equal(region.HostAddress + QueueGuest.Table(ring), (ulong)kernel.Rings[ring].Descriptors);
        }

        device.Reset();
        Assert.False(device.InKernel);
        Assert.Empty(kernel.Served);
        guest.Activate();
        Assert.True(device.InKernel);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void The_kernels_interrupt_reaches_the_driver_of_that_ring(int ring)
    {
        Kernel kernel = new();
        using QueueGuest guest = new(Device([kernel]));
        kernel.Rings[ring].Call.Signal();
        guest.Wait(() => guest.LastSignalled == ring, "no interrupt");
    }

    [Fact]
    public void The_kernel_gets_the_interrupt_itself_where_the_transport_has_one_and_another_when_its_vector_changes()
    {
        Kernel kernel = new();
        using EventFd first = new(), second = new();
        VirtioNet device = Device([kernel]);
        using QueueGuest guest = new(device, activate: false) { Triggers = [first, null] };
        guest.Activate();
        Assert.Same(first, kernel.Rings[0].Call);
        Assert.NotNull(kernel.Rings[1].Call); // the device passes that one on
        kernel.Next[0] = 5;
        guest.Triggers[0] = second;
        guest.QueueTriggerChanged!(0);
        Assert.Same(second, kernel.Rings[0].Call);
        Assert.Equal(5, kernel.Rings[0].Next); // where it stopped
        Assert.Equal([0, 1], kernel.Served.Order());
        guest.Triggers[0] = null;
        guest.QueueTriggerChanged!(0);
        kernel.Rings[0].Call.Signal();
        guest.Wait(() => guest.LastSignalled == 0, "no interrupt");
        device.Reset();
        Assert.Null(guest.QueueTriggerChanged);
        Assert.Null(guest.NeedsReset);
    }

    [Fact]
    public void A_ring_that_the_kernel_cannot_make_sense_of_needs_a_reset()
    {
        Kernel kernel = new();
        using QueueGuest guest = new(Device([kernel]));
        kernel.Rings[0].Error.Signal();
        Assert.Contains("malformed", guest.WaitNeedsReset(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(nameof(IKernelPair.SetFeatures))]
    [InlineData(nameof(IKernelPair.SetMemory))]
    [InlineData(nameof(IKernelPair.SetRing))]
    [InlineData(nameof(IKernelPair.Serve))]
    public void What_the_kernel_refuses_the_device_does_itself(string refusal)
    {
        Kernel kernel = new() { Refuses = refusal };
        MemoryNet net = new() { Kernel = [kernel] };
        VirtioNet device = Device(net);
        using QueueGuest guest = new(device);
        Assert.False(device.InKernel);
        Assert.Empty(kernel.Served);
        Send(guest, 1);
        Assert.Equal(1, Received(guest, net));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Limits_and_unknown_features_stay_with_the_device(bool limit)
    {
        Kernel kernel = new() { Features = limit ? ulong.MaxValue : ulong.MaxValue & ~Indirect };
        MemoryNet net = new() { Kernel = [kernel] };
        VirtioNet device = Device(net, limit ? s_limit : null);
        using QueueGuest guest = new(device, activate: false);
        guest.Activate(Indirect);
        Assert.False(device.InKernel);
        Send(guest, 7);
        Assert.Equal(7, Received(guest, net));
    }

    [Fact]
    public void A_limit_that_comes_takes_over_where_the_kernel_stopped_and_loses_no_frame()
    {
        Kernel kernel = new();
        MemoryNet net = new() { Kernel = [kernel] };
        VirtioNet device = Device(net);
        using QueueGuest guest = new(device);
        ushort[] heads = [Send(guest, 1), Send(guest, 2), Send(guest, 3)];
        guest.PutUsed(1, 0, heads[0]); // the kernel did two of the three
        guest.PutUsed(1, 1, heads[1]);
        kernel.Next[1] = 2;
        kernel.Rings[1].Call.Signal();

        device.SetLimit(s_limit);
        Assert.False(device.InKernel);
        Assert.Empty(kernel.Served);
        Assert.Equal(3, Received(guest, net));
        Assert.Equal([heads[0], heads[1], heads[2]], Enumerable.Range(0, 3).Select(_ => (ushort)guest.WaitUsed(1).Head));
        Send(guest, 4);
        Assert.Equal(4, Received(guest, net));
        device.SetLimit(null);
        Send(guest, 5);
        Assert.Equal(5, Received(guest, net)); // the kernel gets it again with the next driver
    }

    [Fact]
    public void Memory_that_comes_or_goes_is_told_while_rings_are_served_and_not_afterwards()
    {
        Kernel kernel = new();
        VirtioNet device = Device([kernel]);
        using QueueGuest guest = new(device);
        GuestRegion all = guest.Memory.Regions[0];
        MemoryMapOwner map = new(guest.Memory.Ram, new NoSlots());
        GuestRegion middle = new(all.Start + (32UL << 20), new ByteSize(16 << 20), all.HostAddress + (32 << 20));
        map.RemoveRam(middle.Start, middle.Length);
        Assert.Equal(2, kernel.Memory.Count);
        device.Reset();
        map.AddRam(middle);
        Assert.Equal(2, kernel.Memory.Count);
    }

    [Fact]
    public void Memory_in_too_many_pieces_for_the_kernel_leaves_the_rings_to_the_device_and_no_frame_is_lost()
    {
        Kernel kernel = new();
        MemoryNet net = new() { Kernel = [kernel] };
        VirtioNet device = Device(net);
        using QueueGuest guest = new(device);
        ushort[] heads = [Send(guest, 1), Send(guest, 2)];
        guest.PutUsed(1, 0, heads[0]); // the kernel did the first
        kernel.Next[1] = 1;
        kernel.Refuses = nameof(IKernelPair.SetMemory);
        MemoryMapOwner map = new(guest.Memory.Ram, new NoSlots());
        GuestAddress unused = new(48 << 20);
        map.RemoveRam(unused, new ByteSize(4096));
        Assert.False(device.InKernel);
        Assert.Empty(kernel.Served);
        Assert.Equal(2, Received(guest, net));
        Assert.Equal([heads[0], heads[1]], Enumerable.Range(0, 2).Select(_ => (ushort)guest.WaitUsed(1).Head));
        map.RemoveRam(unused + 4096, new ByteSize(4096)); // once is enough
        Send(guest, 3);
        Assert.Equal(3, Received(guest, net));
        Assert.Null(guest.NeedsReset);
    }

    [Fact]
    public void The_driver_decides_how_many_pairs_are_served()
    {
        Kernel first = new(), second = new();
        MemoryNet net = new(2) { Kernel = [first, second] };
        using QueueGuest guest = new(Device(net));
        Assert.Equal((2, 0), (first.Served.Count, second.Served.Count));
        second.Next[0] = 9; // it took nine chains before it was taken back
        foreach ((byte pairs, int served) in new[] { ((byte)2, 2), ((byte)1, 0), ((byte)2, 2) })
        {
            Command(guest, pairs);
            Assert.Equal((2, served, (int)pairs), (first.Served.Count, second.Served.Count, net.Active));
        }

        Assert.Equal(9, second.Rings[0].Next);
    }

    private static void Command(QueueGuest guest, byte pairs)
    {
        guest.Ram(Ctrl, 4).Clear();
        guest.Ram(Ctrl, 4)[0] = 4; // VIRTIO_NET_CTRL_MQ
        guest.Ram(Ctrl + 2, 1)[0] = pairs;
        guest.Ram(Ctrl + 8, 1)[0] = 0xEE;
        guest.Post(4, (Ctrl, 4, false), (Ctrl + 8, 1, true));
        guest.WaitUsed(4);
        Assert.Equal(0, guest.Ram(Ctrl + 8, 1)[0]);
    }

    private static ushort Send(QueueGuest guest, byte number)
    {
        ulong at = Out + (number * 0x100UL);
        guest.Ram(at, 72).Clear();
        guest.Ram(at + 12, 1)[0] = number;
        return guest.Post(1, (at, 72, false));
    }

    private static int Received(QueueGuest guest, MemoryNet net)
    {
        byte[]? frame = null;
        guest.Wait(() => (frame = net.Receive(0)) is not null, "no frame");
        return frame![12];
    }

    private static VirtioNet Device(IKernelPair[] kernel) => Device(new MemoryNet(kernel.Length) { Kernel = kernel });

    private static VirtioNet Device(MemoryNet net, RateLimit? limit = null) =>
        new(net, new VirtioNetOptions { Name = "net0", Mac = new byte[] { 0x52, 0x54, 0, 1, 2, 3 }, Limit = limit });

    private sealed class NoSlots : IMemorySlots
    {
        public void ChangeLog(in MemorySlot slot) { }

        public void TakeLog(in MemorySlot slot, Span<ulong> bitmap) => bitmap.Clear();

        public void Set(in MemorySlot slot) { }

        public void Remove(in MemorySlot slot) { }
    }

    private sealed class Kernel : IKernelPair
    {
        public ulong Features { get; init; } = ulong.MaxValue & ~LogAll;

        public string? Refuses { get; set; }

        public ulong Accepted { get; private set; }

        public List<VhostRegion> Memory { get; private set; } = [];

        public VhostRing[] Rings { get; } = new VhostRing[2];

        public ushort[] Next { get; } = new ushort[2];

        public HashSet<int> Served { get; } = [];

        public void SetFeatures(ulong features)
        {
            Check(nameof(SetFeatures));
            Assert.Empty(Served);
            Accepted = features;
        }

        public void SetMemory(ReadOnlySpan<VhostRegion> regions)
        {
            Check(nameof(SetMemory));
            Memory = [.. regions];
        }

        public void SetRing(int index, in VhostRing ring)
        {
            Check(nameof(SetRing));
            Assert.DoesNotContain(index, Served);
            Rings[index] = ring;
        }

        public void Serve(int index)
        {
            if (index == 1)
            {
                Check(nameof(Serve)); // the first ring goes well
            }

            Assert.True(Served.Add(index));
        }

        public ushort Stop(int index)
        {
            Served.Remove(index);
            return Next[index];
        }

        private void Check(string call)
        {
            if (string.Equals(Refuses, call, StringComparison.Ordinal))
            {
                throw new KernelException(call, 22);
            }
        }
    }
}
