using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.Tests.Virtio;
using Vmm.Devices.Virtio;

namespace Vmm.Devices.Tests.Pci;

/// <summary>
/// Buses behind PCI-to-PCI bridges: routing by the numbers the guest gives, the memory window, bus masters and the reset of a bus.
/// </summary>
public sealed class PciBridgeTests : IDisposable
{
    private const ulong Ecam = 0xE000_0000;
    private const uint Window1 = 0xDA00_0000, Window2 = 0xDC00_0000, Length = 32 << 20;

    private readonly SmallRam _ram = new();
    private readonly CountingMessages _messages = new();
    private readonly RecordingDoorbells _doorbells = new();
    private readonly AddressBus _mmio = new("MMIO");
    private readonly PciHostBridge _bridge;
    private readonly BarAllocator _bars = new(0xC000_0000, 1 << 28);

    public PciBridgeTests()
    {
        _bridge = new PciHostBridge(_mmio, (Window1, Length), (Window2, Length));
        _mmio.Map(Ecam, 1 << 28, _bridge.Ecam, "ECAM");
    }

    public void Dispose()
    {
        _bridge.Dispose();
        _ram.Dispose();
    }

    [Fact]
    public void Bridges_fill_the_last_slots_configured_as_firmware_leaves_them()
    {
        Assert.Equal((3, 0xC000_0001u, 0u), (_bridge.Buses, _bridge.Taken(0), _bridge.Taken(1)));
        foreach ((int slot, uint bus, uint start) in new[] { (30, 1u, Window1), (31, 2u, Window2) })
        {
            ulong config = Config(0, slot);
            Assert.Equal((0x0001_1B36u, 0x0604_0000u, 1u), (Read32(config), Read32(config + 8), Read32(config + 12) >> 16));
            Assert.Equal((6u, (bus << 16) | (bus << 8)), (Read32(config + 4) & 0xFFFF, Read32(config + 0x18)));
            Assert.Equal((start >> 16) | ((start + Length - 1) & 0xFFF0_0000), Read32(config + 0x20));
            Write32(config + 0x1C, 0xE0F0);
            Write32(config + 0x24, 0xFFE0_FFF0);
            Assert.Equal((0u, 0u), (Read32(config + 0x1C), Read32(config + 0x24))); // neither an I/O window nor a prefetchable one
        }

        Assert.Null(_bridge.Unplug(new PciAddress(0, 31)));
    }

    [Fact]
    public void Functions_fill_bus_after_bus_and_are_found_through_ecam_and_ports()
    {
        for (int i = 0; i < 29 + 64; i++)
        {
            PciAddress expected = i < 29 ? new PciAddress(0, i + 1) : new PciAddress(1 + ((i - 29) / 32), (i - 29) % 32);
            Assert.Equal(expected, _bridge.Add(Function(), _bars));
            ulong config = Config(expected.Bus, expected.Slot);
            Assert.Equal(0x1042_1AF4u, Read32(config));
            Assert.Equal(0x1042_1AF4u, ReadPorts(expected));
            uint bar = Read32(config + 0x10) & ~15u;
            (uint start, uint end) = expected.Bus switch
            {
                0 => (0xC000_0000u, Window1),
                1 => (Window1, Window2),
                _ => (Window2, Window2 + Length),
            };
            Assert.InRange(bar, start, end - 1);
            byte[] queues = new byte[2];
            _mmio.Read(bar + 18, queues);
            Assert.Equal([2, 0], queues);
        }

        using VirtioPciFunction more = Function();
        Assert.Throws<InvalidOperationException>(() => _bridge.Plug(more));
        Assert.Equal(uint.MaxValue, Read32(Config(3, 0)));
        Assert.Equal("02:1f.0", new PciAddress(2, 31).ToString());
    }

    /// <summary>Functions of a conventional bus have no PCI Express capability.</summary>
    [Fact]
    public void Only_functions_of_the_root_bus_are_express_functions()
    {
        Assert.Contains(0x10, Capabilities(0, _bridge.Plug(Function()).Slot));
        PciAddress behind = FillRoot();
        Assert.DoesNotContain(0x10, Capabilities(1, behind.Slot));
        Assert.Contains(0x11, Capabilities(1, behind.Slot));
    }

    [Fact]
    public void The_guest_may_number_buses_anew()
    {
        PciAddress at = FillRoot();
        Write32(Config(0, 30) + 0x18, 0x0007_0700);
        Assert.Equal(uint.MaxValue, Read32(Config(1, at.Slot)));
        Assert.Equal(0x1042_1AF4u, Read32(Config(7, at.Slot)));
        Write32(Config(0, 31) + 0x18, 0x0007_0700); // twice the same: the first wins, nothing breaks
        Assert.Equal(0x1042_1AF4u, Read32(Config(7, at.Slot)));
        Write32(Config(0, 30) + 0x18, 0); // not configured: bus 0 stays the host bridge's
        Assert.Equal(0x0008_1B36u, Read32(Config(0, 0)));
    }

    [Fact]
    public void Memory_is_reached_only_through_an_open_window_that_holds_it()
    {
        PciAddress at = FillRoot();
        uint bar = Read32(Config(1, at.Slot) + 0x10) & ~15u;
        ulong bridge = Config(0, 30);
        Assert.True(Answers(bar));
        Write32(bridge + 4, 4);
        Assert.False(Answers(bar));
        Write32(bridge + 4, 6);
        Assert.True(Answers(bar));
        uint window = Read32(bridge + 0x20);
        Write32(bridge + 0x20, 0x0000_FFF0); // base above limit: closed
        Assert.False(Answers(bar));
        Write32(bridge + 0x20, 0xD000_D000);
        Assert.False(Answers(bar));
        Write32(bridge + 0x20, window);
        Assert.True(Answers(bar));
        Write32(Config(1, at.Slot) + 0x10, 0xC800_0000); // outside of it
        Assert.False(Answers(0xC800_0000));
    }

    [Fact]
    public void A_function_masters_the_bus_only_when_its_bridge_does()
    {
        PciAddress at = FillRoot();
        ulong config = Config(1, at.Slot), bridge = Config(0, 30);
        ProbeFunction probe = new();
        Assert.Equal(1, _bridge.Plug(probe).Bus);
        ulong probed = Config(1, at.Slot + 1);
        Write32(probed + 4, 6);
        Assert.True(probe.Master);
        Write32(bridge + 4, 2);
        Assert.False(probe.Master);
        Write32(bridge + 4, 6);
        Assert.True(probe.Master);
        Assert.NotEqual(uint.MaxValue, Read32(config));
    }

    [Fact]
    public void A_reset_of_the_bus_resets_what_is_on_it_once_and_nothing_else()
    {
        PciAddress at = FillRoot();
        ulong config = Config(1, at.Slot), bridge = Config(0, 30), other = Config(0, 1);
        uint bar = Read32(config + 0x10) & ~15u, otherBar = Read32(other + 0x10) & ~15u;
        Write8(bar + 20, 3);
        Write8(otherBar + 20, 3);
        Write32(config + 4, 6);
        Write8(bridge + 0x3E, 0x40);
        Assert.Equal((4u, 0u, false), (Read32(config + 0x10), Read32(config + 4) & 0xFFFF, Answers(bar)));
        Write32(config + 0x10, bar); // still in reset: not reset again by other writes
        Write32(bridge + 4, 6);
        Assert.Equal(bar | 4, Read32(config + 0x10));
        Write8(bridge + 0x3E, 0);
        Write32(config + 4, 6);
        Assert.Equal((0, 3), (Read8(bar + 20), Read8(otherBar + 20)));
    }

    /// <summary>Any writes to the bridges: nothing throws, what is behind is there or is not, and everything heals.</summary>
    [Fact]
    public void Any_configuration_of_the_bridges_is_survived()
    {
        PciAddress at = FillRoot();
        uint bar = Read32(Config(1, at.Slot) + 0x10) & ~15u;
        Random random = new(12);
        byte[] data = new byte[4];
        for (int i = 0; i < 50_000; i++)
        {
            random.NextBytes(data);
            ulong config = Config(random.Next(3) == 0 ? random.Next(256) : 0, random.Next(2) == 0 ? 30 + random.Next(2) : random.Next(32));
            if (random.Next(4) == 0)
            {
                _mmio.Read(config + (ulong)random.Next(0x40), data);
            }
            else
            {
                _mmio.Write(config + (ulong)random.Next(0x40), data.AsSpan(0, 1 << random.Next(3)));
            }
        }

        Write32(Config(0, 30) + 0x18, 0x0001_0100);
        Write32(Config(0, 31) + 0x18, 0x0002_0200);
        Write32(Config(0, 30) + 0x20, (Window1 >> 16) | ((Window1 + Length - 1) & 0xFFF0_0000));
        Write8(Config(0, 30) + 0x3E, 0);
        Write32(Config(0, 30) + 4, 6);
        Write32(Config(1, at.Slot) + 0x10, bar);
        Write32(Config(1, at.Slot) + 0x14, 0);
        Write32(Config(1, at.Slot) + 4, 6);
        Assert.True(Answers(bar));
    }

    [Fact]
    public void A_shared_line_is_high_while_one_of_its_sources_is()
    {
        List<bool> levels = [];
        WiredOr or = new(new Line(levels.Add));
        IInterruptLine first = or.AddInput(), second = or.AddInput();
        first.Set(false);
        first.Set(true);
        second.Set(true);
        first.Set(true);
        first.Set(false);
        Assert.Equal([true], levels);
        second.Set(false);
        second.Set(true);
        Assert.Equal([true, false, true], levels);
    }

    private sealed class Line(Action<bool> set) : IInterruptLine
    {
        public void Set(bool level) => set(level);
    }

    private sealed class ProbeFunction() : PciFunction("probe", 0x1AF4, 0x1111, 0xFF0000, 0)
    {
        public bool Master { get; private set; }

        protected override void BusMasterChanged(bool allowed) => Master = allowed;
    }

    /// <summary>Fills bus 0; the first function behind the first bridge.</summary>
    private PciAddress FillRoot()
    {
        PciAddress at;
        do
        {
            at = _bridge.Add(Function(), _bars);
        }
        while (at.Bus == 0);

        return at;
    }

    private List<int> Capabilities(int bus, int slot)
    {
        List<int> ids = [];
        ulong config = Config(bus, slot);
        for (byte at = Read8(config + 0x34); at != 0; at = Read8(config + at + 1))
        {
            ids.Add(Read8(config + at));
        }

        return ids;
    }

    private VirtioPciFunction Function() => new("dummy", new DummyDevice(), _ram.Memory, _messages, _doorbells);

    private static ulong Config(int bus, int slot) => Ecam + ((ulong)bus << 20) + ((ulong)slot << 15);

    private bool Answers(uint bar) => Read32(bar + 16) != uint.MaxValue;

    private uint ReadPorts(PciAddress at)
    {
        byte[] data = new byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(data, 0x8000_0000u | (uint)(at.Bus << 16) | (uint)(at.Slot << 11));
        _bridge.ConfigPorts.Write(0, data);
        _bridge.ConfigPorts.Read(4, data);
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    private byte Read8(ulong address)
    {
        byte[] data = new byte[1];
        _mmio.Read(address, data);
        return data[0];
    }

    private void Write8(ulong address, byte value) => _mmio.Write(address, [value]);

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
