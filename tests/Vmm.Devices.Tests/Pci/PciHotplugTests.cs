using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.Tests.Virtio;
using Vmm.Devices.Virtio;

namespace Vmm.Devices.Tests.Pci;

/// <summary>Functions that come and go behind the bridge while it is in use.</summary>
public sealed class PciHotplugTests : IDisposable
{
    private const ulong Ecam = 0xE000_0000;

    private readonly SmallRam _ram = new();
    private readonly CountingMessages _messages = new();
    private readonly RecordingDoorbells _doorbells = new();
    private readonly AddressBus _mmio = new("MMIO");
    private readonly PciHostBridge _bridge;

    public PciHotplugTests()
    {
        _bridge = new PciHostBridge(_mmio);
        _mmio.Map(Ecam, 1 << 28, _bridge.Ecam, "ECAM");
    }

    public void Dispose()
    {
        _bridge.Dispose();
        _ram.Dispose();
    }

    [Fact]
    public void A_plugged_function_comes_out_of_reset_is_given_a_bar_by_the_guest_and_leaves_nothing_behind()
    {
        DummyDevice device = new();
        PciAddress at = _bridge.Plug(Function(device));
        Assert.Equal((new PciAddress(0, 1), 3u), (at, _bridge.Taken(0)));
        ulong config = Ecam + ((ulong)at.Slot << 15);
        Assert.Equal((0x1042_1AF4u, 0u, 4u), (Read32(config), Read32(config + 4) & 0xFFFF, Read32(config + 0x10)));
        Write32(config + 0x10, uint.MaxValue);
        Assert.Equal(0xFFFF_8004u, Read32(config + 0x10));
        Write32(config + 0x10, 0xC123_0000);
        Assert.Equal(uint.MaxValue, Read32(0xC123_0000));
        Write32(config + 4, 6);
        Assert.Equal(2, _doorbells.Bound.Count);
        byte[] queues = new byte[2];
        _mmio.Read(0xC123_0000 + 18, queues);
        Assert.Equal([2, 0], queues);
        Write32(0xC123_4000 + 12, 0); // unmask vector 0: a route
        Assert.Single(_messages.Routes);

        PciFunction gone = _bridge.Unplug(at)!;
        Assert.Equal((1u, 1), (_bridge.Taken(0), _mmio.Count));
        Assert.Empty(_doorbells.Bound);
        Assert.Equal(uint.MaxValue, Read32(config));
        gone.Dispose();
        Assert.Empty(_messages.Routes);
        Assert.Null(_bridge.Unplug(at));
    }

    [Fact]
    public void The_bridge_itself_and_slots_that_are_not_there_cannot_be_unplugged()
    {
        Assert.All([0, -1, 32, 31], slot => Assert.Null(_bridge.Unplug(new PciAddress(0, slot))));
        Assert.All([-1, 1, 255], bus => Assert.Null(_bridge.Unplug(new PciAddress(bus, 1))));
        Assert.Equal(1u, _bridge.Taken(0));
    }

    [Fact]
    public void A_freed_slot_is_used_again_and_the_bus_says_when_it_is_full()
    {
        for (int i = 1; i < PciHostBridge.Slots; i++)
        {
            Assert.Equal(new PciAddress(0, i), _bridge.Plug(Function(new DummyDevice())));
        }

        using VirtioPciFunction more = Function(new DummyDevice());
        Assert.Throws<InvalidOperationException>(() => _bridge.Plug(more));
        _bridge.Unplug(new PciAddress(0, 7))!.Dispose();
        Assert.Equal(new PciAddress(0, 7), _bridge.Plug(Function(new DummyDevice())));
    }

    [Fact]
    public void An_access_that_was_on_its_way_to_an_unplugged_device_finds_nothing()
    {
        DummyDevice device = new();
        VirtioPciFunction function = Function(device);
        IBusDevice bar = (IBusDevice)function.Transport;
        _bridge.Unplug(_bridge.Plug(function))!.Dispose();
        byte[] data = [0x0F, 0, 0, 0];
        foreach (ulong offset in new ulong[] { 20, 0x1000, 0x2000, 0x3000, 0x4000, 0x400C, 0x6000 })
        {
            bar.Write(offset, data);
            byte[] read = new byte[4];
            bar.Read(offset, read);
            Assert.All(read, b => Assert.Equal(0xFF, b));
        }

        Assert.Null(device.Active);
        Assert.Empty(_messages.Routes);
    }

    /// <summary>A driver that waits for the end of its reset finds one; other BARs come to the place, or over a part of it.</summary>
    [Fact]
    public void Registers_of_a_device_that_was_taken_read_as_zeros_until_another_is_there_and_only_so_many_are_remembered()
    {
        for (int i = 0; i < 100; i++)
        {
            uint bar = 0xC000_0000u + ((uint)i << 15);
            PciAddress taken = Place(bar);
            Assert.Equal(2, Queues(bar));
            _bridge.Unplug(taken, surprise: true)!.Dispose();
            Assert.Equal(0u, Read32(bar + 20));
            Write32(bar + 20, 0);
            Assert.Equal(1 + Math.Min(i + 1, 64), _mmio.Count);
        }

        Assert.Equal((uint.MaxValue, 0u), (Read32(0xC000_0014), Read32(0xC000_0014 + (36 << 15)))); // the oldest are forgotten
        PciAddress next = Place(0xC000_0000u + (70 << 15));
        Assert.Equal(2, Queues(0xC000_0000u + (70 << 15)));
        _bridge.Unplug(next)!.Dispose();
        Assert.Equal(uint.MaxValue, Read32(0xC000_0014u + (70 << 15))); // it was let go of
        PciAddress probe = _bridge.Plug(new WideFunction());
        Write32(Ecam + ((ulong)probe.Slot << 15) + 0x10, 0xC000_0000u + (72 << 15)); // over four of them
        Write32(Ecam + ((ulong)probe.Slot << 15) + 4, 2);
        Assert.Equal(1 + 63 - 4 + 1, _mmio.Count);
        Assert.Equal((0u, 0x5555_5555u), (Read32(0xC000_0014u + (71 << 15)), Read32(0xC000_0014u + (75 << 15))));

        int Queues(uint bar)
        {
            byte[] queues = new byte[2];
            _mmio.Read(bar + 18, queues);
            return BinaryPrimitives.ReadUInt16LittleEndian(queues);
        }

        PciAddress Place(uint bar)
        {
            PciAddress at = _bridge.Plug(Function(new DummyDevice()));
            Write32(Ecam + ((ulong)at.Slot << 15) + 0x10, bar);
            Write32(Ecam + ((ulong)at.Slot << 15) + 4, 6);
            return at;
        }
    }

    private sealed class WideFunction : PciFunction, IBusDevice
    {
        public WideFunction() : base("wide", 0x1AF4, 0x1111, 0xFF0000, 0) =>
            AddBar(0, Bar.OfRegisters(BarKind.Memory32, 4 << 15, this));

        public void Read(ulong offset, Span<byte> data) => data.Fill(0x55);

        public void Write(ulong offset, ReadOnlySpan<byte> data) { }
    }

    [Fact]
    public async Task Threads_that_use_slots_while_devices_come_and_go_meet_no_error()
    {
        using CancellationTokenSource stop = new();
        Task[] guests = [.. Enumerable.Range(0, 3).Select(seed => Task.Run(() => Hammer(new Random(seed), stop.Token)))];
        for (int round = 0; round < 2000; round++)
        {
            PciAddress at = _bridge.Plug(Function(new DummyDevice()));
            Write32(Ecam + ((ulong)at.Slot << 15) + 0x10, 0xC000_0000u + (uint)(at.Slot << 16));
            Write32(Ecam + ((ulong)at.Slot << 15) + 4, 6);
            if (round % 3 == 0)
            {
                Thread.Yield();
            }

            _bridge.Unplug(at)!.Dispose();
        }

        await stop.CancelAsync();
        await Task.WhenAll(guests);
        Assert.Equal((1u, 1), (_bridge.Taken(0), _mmio.Count));
        Assert.Empty(_doorbells.Bound);
    }

    private void Hammer(Random random, CancellationToken stop)
    {
        byte[] data = new byte[4];
        while (!stop.IsCancellationRequested)
        {
            uint slot = (uint)random.Next(1, 3);
            ulong at = random.Next(3) == 0
                ? Ecam + (slot << 15) + (ulong)(4 * random.Next(0, 4))
                : 0xC000_0000 + (slot << 16) + (ulong)(4 * random.Next(0, 0x2000));
            random.NextBytes(data);
            if (random.Next(2) == 0)
            {
                _mmio.Write(at, data);
            }
            else
            {
                _mmio.Read(at, data);
            }
        }
    }

    private VirtioPciFunction Function(DummyDevice device) => new("dummy", device, _ram.Memory, _messages, _doorbells);

    private uint Read32(ulong address)
    {
        byte[] data = new byte[4];
        _mmio.Read(address, data);
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    private void Write32(ulong address, uint value)
    {
        byte[] data = new byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(data, value);
        _mmio.Write(address, data);
    }
}
