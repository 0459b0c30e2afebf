using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;

namespace Vmm.Devices.Tests.Pci;

/// <summary>Functions where their maker puts them: slots and functions of a slot.</summary>
public sealed class PciSlotTests : IDisposable
{
    private const ulong Ecam = 0xE000_0000;

    private readonly AddressBus _mmio = new("MMIO");
    private readonly BarAllocator _bars = new(0xC000_0000, 1 << 28);
    private readonly PciHostBridge _bridge;

    public PciSlotTests()
    {
        _bridge = new PciHostBridge(_mmio, (0xDE00_0000u, 32u << 20));
        _mmio.Map(Ecam, 1 << 28, _bridge.Ecam, "ECAM");
    }

    public void Dispose() => _bridge.Dispose();

    [Fact]
    public void A_function_is_where_it_was_put_and_nowhere_else()
    {
        _bridge.Add(new Card(1), new PciAddress(0, 17), _bars);
        _bridge.Plug(new Card(2), new PciAddress(1, 9));
        Assert.Equal((0x8002_0001u, 0x200u), (_bridge.Taken(0), _bridge.Taken(1)));
        for (int slot = 1; slot < 31; slot++)
        {
            Assert.Equal(slot == 17 ? 0x0001_1AF4 : uint.MaxValue, Read32(0, slot, 0, 0));
            Assert.Equal(slot == 9 ? 0x0002_1AF4 : uint.MaxValue, Read32(1, slot, 0, 0));
        }
    }

    [Fact]
    public void A_slot_with_several_functions_says_so_and_shows_each()
    {
        _bridge.Add(new Card(1), new PciAddress(0, 4), _bars);
        Assert.Equal(0u, HeaderType(4));
        _bridge.Add(new Card(2), new PciAddress(0, 4, 7), _bars);
        _bridge.Plug(new Card(3), new PciAddress(0, 4, 3));
        Assert.Equal(0x80u, HeaderType(4));
        Assert.Equal([1u, 0xFFFF, 0xFFFF, 3, 0xFFFF, 0xFFFF, 0xFFFF, 2], Enumerable.Range(0, 8).Select(f => Read32(0, 4, f, 0) >> 16));
        Assert.NotNull(_bridge.Unplug(new PciAddress(0, 4, 3)));
        Assert.Equal(0x80u, HeaderType(4));
        PciFunction seven = _bridge.Unplug(new PciAddress(0, 4, 7))!;
        Assert.Equal((0u, 1u << 4), (HeaderType(4), _bridge.Taken(0) & (1u << 4)));
        Assert.Null(_bridge.Unplug(new PciAddress(0, 4, 7)));
        _bridge.Plug(seven, new PciAddress(0, 5, 1)); // before its function 0
        _bridge.Plug(new Card(5), new PciAddress(0, 5));
        Assert.Equal((0x80u, 1u << 5), (HeaderType(5), _bridge.Taken(0) & (1u << 5)));
    }

    [Fact]
    public void The_reset_of_a_bus_resets_every_function_of_its_slots()
    {
        _bridge.Add(new Card(1), new PciAddress(1, 0), _bars);
        _bridge.Add(new Card(2), new PciAddress(1, 0, 1), _bars);
        Assert.All((int[])[0, 1], function => Assert.Equal(2u, Read32(1, 0, function, 4)));
        _mmio.Write(Ecam + (31 << 15) + 0x3E, [0x40]);
        Assert.All((int[])[0, 1], function => Assert.Equal((0u, 0u), (Read32(1, 0, function, 4), Read32(1, 0, function, 0x10))));
        Assert.Equal(0x80u, Read32(1, 0, 0, 0x0C) >> 16); // what it is stays
    }

    [Fact]
    public void A_place_that_is_taken_or_does_not_exist_is_refused_by_name()
    {
        _bridge.Add(new Card(1), new PciAddress(0, 4), _bars);
        using Card card = new(2);
        foreach ((PciAddress at, string text) in new[]
        {
            (new PciAddress(0, 4), "card 2: card 1 is at 00:04.0"), (new PciAddress(0, 0), "host bridge is at 00:00.0"),
            (new PciAddress(0, 31), "PCI bridge 1 is at"),
            (new PciAddress(2, 0), "no PCI slot 02:00.0"), (new PciAddress(-1, 0), "no PCI slot"), (new PciAddress(0, 32), "no PCI slot"),
            (new PciAddress(0, 4, 8), "no PCI slot 00:04.8"),
            (new PciAddress(0, -1), "no PCI slot"), (new PciAddress(0, 1, -1), "no PCI slot"),
        })
        {
            Assert.Contains(text, Assert.Throws<InvalidOperationException>(() => _bridge.Plug(card, at)).Message, StringComparison.Ordinal);
            Assert.Contains(
                text, Assert.Throws<InvalidOperationException>(() => _bridge.Add(card, at, _bars)).Message, StringComparison.Ordinal);
        }

        Assert.Equal(0xC000_1000UL, _bars.Take(16, "next")); // no address was taken for it
    }

    private uint HeaderType(int slot) => (Read32(0, slot, 0, 0x0C) >> 16) & 0xFF;

    private uint Read32(int bus, int slot, int function, int register)
    {
        byte[] data = new byte[4];
        _mmio.Read(Ecam + ((ulong)bus << 20) + ((ulong)slot << 15) + ((ulong)function << 12) + (ulong)register, data);
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    private sealed class Card : PciFunction, IBusDevice
    {
        internal Card(ushort id) : base($"card {id}", 0x1AF4, id, 0xFF0000, 0) => AddBar(0, Bar.OfRegisters(BarKind.Memory32, 16, this));

        public void Read(ulong offset, Span<byte> data) => data.Clear();

        public void Write(ulong offset, ReadOnlySpan<byte> data) { }
    }
}
