using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.Tests.Virtio;
using Vmm.Devices.Virtio;

namespace Vmm.Devices.Tests.Pci;

/// <summary>
/// PCI Express root ports as a guest's drivers of ports and of hot-plug see them (PCI Express base spec 6.7, 7.5.3): two ports in slot 31
/// of bus 0, the registers found by a walk of the capability list.
/// </summary>
public sealed class PciRootPortTests : IDisposable
{
    private const ulong Ecam = 0xE000_0000;
    private const uint Window = 0xDFE0_0000, Megabyte = 1 << 20;
    private const uint Button = 1, PresenceChanged = 8, Present = 0x40, LinkChanged = 0x100, AllEvents = 0x10B;
    private const uint IndicatorOn = 0x100, Blinks = 0x200, IndicatorOff = 0x300, PowerOff = 0x400, HotPlugInterrupts = 0x1021;
    private const uint Identity = 0x1042_1AF4, Nothing = uint.MaxValue;
    private const int SlotControl = 0x18, SlotStatus = 0x1A, LinkControl = 0x10, LinkStatus = 0x12;

    private readonly SmallRam _ram = new();
    private readonly AddressBus _mmio = new("MMIO");
    private readonly BarAllocator _bars = new(0xC000_0000, 1 << 28);
    private readonly Level _line = new();
    private readonly PciHostBridge _bridge;
    private readonly PciPortHotplug _hotplug;
    private readonly List<int> _ejected = [];

    public PciRootPortTests()
    {
        _bridge = new PciHostBridge(_mmio) { Lines = [new WiredOr(_line)] };
        _mmio.Map(Ecam, 1 << 28, _bridge.Ecam, "ECAM");
        _bridge.AddRootPort(new PciAddress(0, 31, 0), Window, Megabyte);
        _bridge.AddRootPort(new PciAddress(0, 31, 1), Window + Megabyte, Megabyte);
        _hotplug = new PciPortHotplug(_bridge, bus =>
        {
            _ejected.Add(bus);
            _bridge.Unplug(new PciAddress(bus, 0))!.Dispose();
        });
    }

    public void Dispose()
    {
        _bridge.Dispose();
        _ram.Dispose();
    }

    [Fact]
    public void A_port_is_what_a_port_driver_looks_for()
    {
        foreach (int bus in (int[])[1, 2])
        {
            Assert.Equal((0x000C_1B36u, 0x0604_0000u), (Read(Port(bus)), Read(Port(bus) + 8)));
            Assert.Equal(bus == 1 ? 0x81u : 1, Read(Port(bus) + 0x0E, 1)); // type 1; function 0 says that there are more
            Assert.Equal((uint)((bus << 16) | (bus << 8)), Read(Port(bus) + 0x18));
            uint start = Window + ((uint)(bus - 1) * Megabyte);
            Assert.Equal((start >> 16) | (start & 0xFFF0_0000), Read(Port(bus) + 0x20));
            Assert.Equal((0u, 0u), (Read(Port(bus) + 0x1C, 2), Read(Port(bus) + 0x24))); // no I/O window, no prefetchable one
            Assert.Equal(1u, Read(Port(bus) + 0x3D, 1)); // INTA
            Assert.Equal(0x142u, Register(bus, 2)); // version 2, root port, slot implemented
            Assert.Equal(0x0050_0011u | ((uint)bus << 24), Register(bus, 0x0C, 4)); // 2.5 GT/s, one lane, tells of its link
            // button, controller and indicator of power, hot-plug without surprises, commands that complete at once
            Assert.Equal(0x0004_0053u | ((uint)bus << 19), Register(bus, 0x14, 4));
            Assert.Equal(
                (IndicatorOff | PowerOff, 0u, 0u), (Register(bus, SlotControl), Register(bus, SlotStatus), Register(bus, LinkStatus)));
        }

        Assert.Equal(3, _bridge.Buses);
        Assert.Null(_bridge.Unplug(new PciAddress(0, 31, 1)));
        Assert.Throws<InvalidOperationException>(() => _bridge.AddRootPort(new PciAddress(0, 31, 1), Window, Megabyte));
        Assert.Throws<InvalidOperationException>(() => _bridge.AddRootPort(new PciAddress(0, 32), Window, Megabyte));
    }

    /// <summary>edk2's PciHotPlugInitDxe looks for this on bridges of this vendor.</summary>
    [Fact]
    public void Firmware_is_told_how_much_room_a_port_needs_and_others_are_told_nothing()
    {
        using PciHostBridge bridge = new(_mmio, PciFace.Q35);
        bridge.AddRootPort(new PciAddress(0, 30, 0), Window, Megabyte);
        byte[] config = new byte[256], word = new byte[4];
        for (int at = 0; at < config.Length; at += 4)
        {
            bridge.Ecam.Read((30UL << 15) + (ulong)at, word);
            word.CopyTo(config, at);
        }

        int room = config[0x34];
        while (room != 0 && config[room] != 9)
        {
            room = config[room + 1];
        }

        Assert.Equal([9, 0, 32, 1], config[room..(room + 4)]);
        uint[] hints = [.. Enumerable.Range(1, 7).Select(i => BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(room + (4 * i))))];
        Assert.Equal([0u, 0, 0, 2 * Megabyte, Megabyte, 0, 0], hints);
        Assert.Throws<Xunit.Sdk.NotEqualException>(() => Capability(Port(1), 9)); // a port that comes configured
    }

    /// <summary>As a firmware leaves it: an endpoint with power, its BAR in the window of its port.</summary>
    [Fact]
    public void A_device_that_is_there_from_the_start_works_behind_its_port()
    {
        AddAtStart(2);
        Assert.Equal((Identity, Nothing), (Read(Device(2)), Read(Device(1))));
        Assert.Equal((IndicatorOn, Present, 0x2011u), (Register(2, SlotControl), Register(2, SlotStatus), Register(2, LinkStatus)));
        uint bar = Read(Device(2) + 0x10) & ~15u;
        Assert.InRange(bar, Window + Megabyte, Window + (2 * Megabyte) - 1);
        Assert.Equal(2u, Read(bar + 18, 2)); // queues of the device
        int express = Capability(Device(2), 0x10);
        Assert.Equal((2u, 0x0040_0011u, 0x11u), (Read(Device(2) + (ulong)express + 2, 2), Read(Device(2) + (ulong)express + 0x0C),
            Read(Device(2) + (ulong)express + 0x12, 2))); // an endpoint with a link as its port has
        Assert.Equal(Nothing, Read(Device(2) + (1 << 15))); // the link leads to one device
        Assert.False(_line.High);
    }

    [Fact]
    public void A_function_on_bus_0_is_one_of_the_root_complex_without_a_link()
    {
        PciAddress at = _bridge.Add(Function(), _bars);
        ulong config = Ecam + ((ulong)at.Slot << 15);
        int express = Capability(config, 0x10);
        Assert.Equal((0x92u, 0u), (Read(config + (ulong)express + 2, 2), Read(config + (ulong)express + 0x0C)));
    }

    [Fact]
    public void A_device_that_is_plugged_is_told_of_and_comes_with_its_power()
    {
        Write(1, SlotControl, IndicatorOff | PowerOff | HotPlugInterrupts);
        Plug(1);
        Assert.Equal(
            (Present | PresenceChanged | Button, 0u, Nothing), (Register(1, SlotStatus), Register(1, LinkStatus), Read(Device(1))));
        Assert.True(_line.High); // the button's
        Assert.Equal(8u, Read(Port(1) + 6, 2) & 8);
        Write(1, SlotStatus, AllEvents);
        Assert.Equal((false, Present), (_line.High, Register(1, SlotStatus)));

        Write(1, SlotControl, IndicatorOff | HotPlugInterrupts); // power
        Assert.Equal((Present | LinkChanged, 0x2011u, Identity), (Register(1, SlotStatus), Register(1, LinkStatus), Read(Device(1))));
        Assert.True(_line.High); // the link's
        Write(1, SlotStatus, LinkChanged);
        Write(1, SlotControl, IndicatorOn | HotPlugInterrupts);
        Assert.False(_line.High);
        Write32(Device(1) + 0x10, Window);
        Write32(Device(1) + 4, 6);
        Assert.Equal(2u, Read(Window + 18, 2));
        Assert.Empty(_ejected);
    }

    [Fact]
    public void A_device_that_is_asked_for_is_ejected_when_the_indicator_is_off_and_not_before()
    {
        AddAtStart(1);
        Write(1, SlotControl, IndicatorOn | HotPlugInterrupts);
        Assert.True(_hotplug.AskRemoval(1));
        Assert.Equal((Present | Button, true), (Register(1, SlotStatus), _line.High));
        Write(1, SlotStatus, Button);
        Write(1, SlotControl, Blinks | HotPlugInterrupts);
        Assert.True(_hotplug.AskRemoval(1)); // once more: a press now would take the first one back
        Assert.Equal(Present, Register(1, SlotStatus));
        Write(1, SlotControl, IndicatorOn | HotPlugInterrupts); // the guest thought better of it, and hears of the second wish
        Assert.Equal(Present | Button, Register(1, SlotStatus));
        Write(1, SlotStatus, Button);
        Write(1, SlotControl, Blinks | PowerOff | HotPlugInterrupts);
        Assert.Equal((Nothing, Present | LinkChanged), (Read(Device(1)), Register(1, SlotStatus)));
        Assert.Empty(_ejected);
        Write(1, SlotControl, IndicatorOff | PowerOff | HotPlugInterrupts);
        Assert.Equal((1, 0u), (Assert.Single(_ejected), _bridge.Taken(1)));
        Assert.Equal(PresenceChanged | LinkChanged, Register(1, SlotStatus));
        Write(1, SlotControl, IndicatorOff | PowerOff | HotPlugInterrupts);
        Assert.Single(_ejected);
        Assert.False(_hotplug.AskRemoval(1));
        Assert.False(_hotplug.Take(1));
    }

    /// <summary>
    /// Nobody wants it back: it stays in its slot, comes out of its reset with the next power, and goes at once when asked for.
    /// </summary>
    [Fact]
    public void A_device_that_the_guest_turns_off_by_itself_stays()
    {
        AddAtStart(1);
        Write32(Device(1) + 4, 6);
        Write(1, SlotControl, IndicatorOff | PowerOff);
        Assert.Equal((Nothing, Present | LinkChanged, false), (Read(Device(1)), Register(1, SlotStatus), Answers(Window)));
        Write(1, SlotControl, IndicatorOn);
        Assert.Equal((Identity, 0u, 4u), (Read(Device(1)), Read(Device(1) + 4, 2), Read(Device(1) + 0x10)));
        Write(1, SlotControl, IndicatorOff | PowerOff);
        Assert.Empty(_ejected);
        Assert.True(_hotplug.AskRemoval(1));
        Assert.Equal(1, Assert.Single(_ejected));
    }

    [Fact]
    public void A_device_that_is_taken_is_gone_with_its_link()
    {
        AddAtStart(1);
        Write(1, SlotControl, IndicatorOn | HotPlugInterrupts);
        Assert.True(_hotplug.Take(1));
        Assert.Equal((Nothing, PresenceChanged | LinkChanged, 0u), (Read(Device(1)), Register(1, SlotStatus), Register(1, LinkStatus)));
        Assert.True(_line.High);
        _bridge.Unplug(new PciAddress(1, 0), surprise: true)!.Dispose();
        Assert.Empty(_ejected);
        Assert.Equal(0u, Read(Window + 20, 1)); // the driver's reset ends
        Plug(1); // into a slot that has power still
        Assert.Equal(Identity, Read(Device(1)));
        Write32(Device(1) + 0x10, Window); // where the other one was
        Write32(Device(1) + 4, 6);
        Assert.Equal(2u, Read(Window + 18, 2));
    }

    [Fact]
    public void A_disabled_link_is_down()
    {
        AddAtStart(1);
        Write(1, LinkControl, 0x10);
        Assert.Equal((Nothing, 0u, Present | LinkChanged), (Read(Device(1)), Register(1, LinkStatus), Register(1, SlotStatus)));
        Write(1, LinkControl, 0);
        Assert.Equal((Identity, 0x2011u), (Read(Device(1)), Register(1, LinkStatus)));
    }

    [Fact]
    public void The_guest_may_number_buses_anew_and_a_range_without_buses_forwards_nothing()
    {
        AddAtStart(1);
        Write32(Port(1) + 0x18, 0x0009_0900);
        Assert.Equal((Nothing, Identity), (Read(Device(1)), Read(Device(9))));
        Write32(Port(1) + 0x18, 0x0008_0900);
        Assert.Equal(Nothing, Read(Device(9)));
    }

    [Fact]
    public void Interrupt_disable_holds_the_line_low_and_the_status_tells_of_it()
    {
        Write(1, SlotControl, IndicatorOff | PowerOff | HotPlugInterrupts);
        Write32(Port(1) + 4, 0x406);
        Plug(1);
        Assert.Equal((false, 8u), (_line.High, Read(Port(1) + 6, 2) & 8));
        Write32(Port(1) + 4, 6);
        Assert.True(_line.High);
    }

    /// <summary>
    /// Any order of what host and guest can do, beside a model that knows three bits of the guest's and two of the host's: presence, link,
    /// what is reachable, what is ejected, and the interrupt are what the model says after every step.
    /// </summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Any_order_of_steps_of_host_and_guest_keeps_the_slot_true(int seed)
    {
        Random random = new(seed);
        bool present = false, asked = false;
        int inserted = 0, taken = 0;
        uint control = IndicatorOff | PowerOff, link = 0;
        for (int step = 0; step < 40_000; step++)
        {
            switch (random.Next(8))
            {
                case 0 when !present:
                    Plug(1);
                    (present, asked) = (true, false);
                    inserted++;
                    break;
                case 1:
                    Assert.Equal(present, _hotplug.AskRemoval(1));
                    asked = present;
                    break;
                case 2 when random.Next(4) == 0:
                    Assert.Equal(present, _hotplug.Take(1));
                    taken += present ? 1 : 0;
                    _bridge.Unplug(new PciAddress(1, 0))?.Dispose();
                    (present, asked) = (false, false);
                    break;
                case 3 or 4:
                    control = (uint)(random.Next(8) << 8) | (random.Next(2) == 0 ? HotPlugInterrupts : (uint)random.Next(0x10000));
                    Write(1, SlotControl, control);
                    break;
                case 5 when random.Next(3) == 0:
                    link = (uint)random.Next(2) * 0x10;
                    Write(1, LinkControl, link);
                    break;
                case 6:
                    Write(1, SlotStatus, (uint)random.Next(0x10000));
                    break;
                default:
                    Write(1, 2 * random.Next(2, 30), (uint)random.Next(0x10000));
                    control = Register(1, SlotControl);
                    link = Register(1, LinkControl) & 0x10;
                    break;
            }

            if (present && asked && (control & 0x700) == (PowerOff | IndicatorOff))
            {
                (present, asked) = (false, false);
            }

            bool linked = present && (control & PowerOff) == 0 && link == 0;
            uint status = Register(1, SlotStatus);
            Assert.Equal((present, linked), ((status & Present) != 0, (Register(1, LinkStatus) & 0x2000) != 0));
            Assert.Equal(linked ? Identity : Nothing, Read(Device(1)));
            Assert.Equal((present ? 1u : 0, inserted - taken - (present ? 1 : 0)), (_bridge.Taken(1), _ejected.Count));
            uint enabled = Register(1, SlotControl);
            bool pending = (status & enabled & 9) != 0 || ((status & LinkChanged) != 0 && (enabled & 0x1000) != 0);
            Assert.Equal(pending && (enabled & 0x20) != 0, _line.High);
        }

        Assert.True(_ejected.Count > 100 && taken > 100, $"{_ejected.Count} ejected, {taken} taken of {inserted}");
    }

    /// <summary>Everything that was written comes back, and what the guest was asked for is still asked for.</summary>
    [Fact]
    public void A_port_that_is_saved_amid_a_removal_goes_on_with_it()
    {
        AddAtStart(1);
        Write(1, SlotControl, IndicatorOn | HotPlugInterrupts);
        Assert.True(_hotplug.AskRemoval(1));
        (PciStateV1 pci, PciPortsStateV1 ports) = (_bridge.Capture(), _hotplug.Capture());

        using PciRootPortTests restored = new();
        restored.AddAtStart(1);
        restored._bridge.Restore(pci);
        restored._hotplug.Restore(ports);
        Assert.Equal((Present | Button, true, Identity), (restored.Register(1, SlotStatus), restored._line.High, restored.Read(Device(1))));
        restored.Write(1, SlotControl, IndicatorOff | PowerOff);
        Assert.Equal(1, Assert.Single(restored._ejected));
        Assert.Throws<State.StateException>(() => restored._hotplug.Restore(new PciPortsStateV1 { Leaving = [3], ToPress = [] }));
    }

    private void AddAtStart(int bus)
    {
        _bridge.Add(Function(), new PciAddress(bus, 0), _bars);
        _hotplug.Allow(bus);
    }

    private void Plug(int bus)
    {
        _bridge.Plug(Function(), new PciAddress(bus, 0));
        _hotplug.Added(bus);
    }

    private VirtioPciFunction Function() => new("dummy", new DummyDevice(), _ram.Memory, new CountingMessages(), null);

    private static ulong Port(int bus) => Ecam + (31UL << 15) + ((ulong)(bus - 1) << 12);

    private static ulong Device(int bus) => Ecam + ((ulong)bus << 20);

    private uint Register(int bus, int at, int width = 2) => Read(Port(bus) + (ulong)(Capability(Port(bus), 0x10) + at), width);

    private void Write(int bus, int at, uint value) =>
        _mmio.Write(Port(bus) + (ulong)(Capability(Port(bus), 0x10) + at), BitConverter.GetBytes((ushort)value));

    private int Capability(ulong config, byte id)
    {
        uint at = Read(config + 0x34, 1);
        while (at != 0 && Read(config + at, 1) != id)
        {
            at = Read(config + at + 1, 1);
        }

        Assert.NotEqual(0u, at);
        return (int)at;
    }

    private bool Answers(ulong bar) => Read(bar + 16) != Nothing;

    private uint Read(ulong address, int width = 4)
    {
        byte[] data = new byte[4];
        _mmio.Read(address, data.AsSpan(0, width));
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    private void Write32(ulong address, uint value) => _mmio.Write(address, BitConverter.GetBytes(value));

    private sealed class Level : IInterruptLine
    {
        public bool High { get; private set; }

        public void Set(bool level) => High = level;
    }
}
