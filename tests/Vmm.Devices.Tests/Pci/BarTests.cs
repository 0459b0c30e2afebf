using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.Tests.Virtio;
using Vmm.Devices.Virtio;
using Vmm.Memory;

namespace Vmm.Devices.Tests.Pci;

/// <summary>BARs of all kinds: sized, placed, moved, switched, and never over something else.</summary>
public sealed class BarTests : IDisposable
{
    private const ulong Ecam = 0xE000_0000, Low = 0xC000_0000, High = 0x2_0000_0000, HighLength = 1UL << 33;
    private const ulong Host = 0x7000_0000;

    private readonly AddressBus _mmio = new("MMIO");
    private readonly Mappings _mappings = new();
    private readonly BarAllocator _low = new(Low, 1 << 28), _high = new(High, HighLength);
    private readonly PciHostBridge _bridge;

    public BarTests()
    {
        _bridge = new PciHostBridge(_mmio, (0xDC00_0000u, 32u << 20)) { Mappings = _mappings };
        _mmio.Map(Ecam, 1 << 28, _bridge.Ecam, "ECAM");
    }

    public void Dispose() => _bridge.Dispose();

    [Fact]
    public void Each_kind_says_what_it_is_how_long_it_is_and_gets_its_place()
    {
        Card card = new(
            (0, Bar.OfRegisters(BarKind.Memory32, 0x1000, new Echo())),
            (1, Bar.OfRegisters(BarKind.Memory64, 0x2000, new Echo())),
            (3, Bar.OfMemory(new HostMapping((nint)Host, 3UL << 30))));
        ulong config = Config(_bridge.Add(card, _low, _high));
        Assert.Equal([(uint)Low, (uint)Low + 0x2004, 0u, 0xCu, 2u, 0u], Registers(config));
        foreach (ulong register in (ReadOnlySpan<ulong>)[0x10, 0x14, 0x18, 0x1C, 0x20, 0x24])
        {
            Write32(config + register, uint.MaxValue);
        }

        Assert.Equal([0xFFFF_F000u, 0xFFFF_E004, uint.MaxValue, 0xCu, uint.MaxValue, 0u], Registers(config));
        Assert.Empty(_mappings.Now); // being sized is no place
    }

    [Theory]
    [InlineData(0x1000UL, 0x1000UL)]
    [InlineData(0x20_1000UL, 0x40_0000UL)] // the BAR is longer than the memory
    public void Memory_is_the_guests_where_the_bar_is_while_decoding_is_on(ulong length, ulong bar)
    {
        Card card = new((2, Bar.OfMemory(new HostMapping((nint)Host, length))));
        ulong config = Config(_bridge.Add(card, _low, _high));
        Assert.Equal([(High, Host, length)], _mappings.Now);
        Assert.Equal([(2, (ulong?)High)], card.Moves);
        Write32(config + 4, 0);
        Assert.Empty(_mappings.Now);
        Write32(config + 0x18, (uint)bar);
        Write32(config + 0x1C, 3);
        Write32(config + 4, 2);
        Assert.Equal([(0x3_0000_0000 + bar, Host, length)], _mappings.Now);
        Write32(config + 0x1C, 2); // moved while decoding
        Assert.Equal([(High + bar, Host, length)], _mappings.Now);
        Assert.Equal(uint.MaxValue, Read32(High + bar)); // what is no memory
        Write32(config + 0x18, 0);
        Write32(config + 0x1C, 0);
        Assert.Empty(_mappings.Now);
        Assert.Null(card.MappedBar(2));
    }

    [Fact]
    public void Memory_is_not_put_over_another_bar_or_where_the_machine_refuses_it()
    {
        Card one = new((0, Bar.OfRegisters(BarKind.Memory64, 0x1_0000, new Echo()))),
            other = new((0, Bar.OfMemory(new HostMapping((nint)Host, 0x1000))));
        ulong first = Config(_bridge.Add(one, _low, _high)), config = Config(_bridge.Add(other, _low, _high));
        foreach ((uint low, uint high) in new[]
        {
            ((uint)Low + 0xF000, 0u), ((uint)Ecam, 0u), ((uint)Ecam + 0x800_0000, 0u), (uint.MaxValue, uint.MaxValue)
        })
        {
            Write32(config + 0x10, low);
            Write32(config + 0x14, high);
            Assert.Empty(_mappings.Now);
            Assert.Equal(0x0010_0001u, Read32(Low)); // the other answers still
        }

        _mappings.Refuses = true;
        Write32(config + 0x14, 2);
        Assert.Null(other.MappedBar(0));
        Assert.Equal(2, _mmio.Count); // nothing is left of the attempt: ECAM, the first
        _mappings.Refuses = false;
        Write32(first + 4, 0);
        Write32(config + 0x10, (uint)Low + 0xF000);
        Write32(config + 0x14, 0);
        Assert.Equal([(Low + 0xF000, Host, 0x1000UL)], _mappings.Now);
        Write32(first + 4, 2); // now it is the first that finds its place taken
        Assert.Null(one.MappedBar(0));
    }

    [Fact]
    public void What_is_unplugged_is_unmapped_and_its_addresses_are_given_out_again()
    {
        Card first = new((0, Bar.OfMemory(new HostMapping((nint)Host, HighLength / 2)))),
            second = new((0, Bar.OfMemory(new HostMapping((nint)Host, HighLength / 2))));
        PciAddress at = _bridge.Add(first, _low, _high);
        _bridge.Add(second, _low, _high);
        using Card third = new(
            (0, Bar.OfRegisters(BarKind.Memory32, 16, new Echo())), (2, Bar.OfMemory(new HostMapping((nint)Host, HighLength / 2))));
        string message = Assert.Throws<InvalidOperationException>(() => _bridge.Add(third, _low, _high)).Message;
        Assert.Contains("card: the PCI window at 0x200000000", message, StringComparison.Ordinal);
        Write32(Config(at) + 0x14, 0x10); // wherever the guest moved it
        _bridge.Unplug(at)!.Dispose();
        Assert.Equal([(High + (HighLength / 2), Host, HighLength / 2)], _mappings.Now);
        using Card fourth = new((0, Bar.OfMemory(new HostMapping((nint)Host, HighLength / 2))));
        Assert.Equal(at, _bridge.Add(fourth, _low, _high));
        Assert.Equal(High, fourth.MappedBar(0)!.Value.Value);
        Assert.Equal(Low, _low.Take(16, "next")); // what the third took before it failed is free
    }

    [Fact]
    public void A_function_whose_bus_is_reset_takes_its_memory_away()
    {
        while (_bridge.Taken(0) != uint.MaxValue)
        {
            _bridge.Plug(new Card());
        }

        ulong config = Config(_bridge.Add(new Card((0, Bar.OfMemory(new HostMapping((nint)Host, 0x4000)))), _low, _high));
        Assert.Equal([(0xDC00_0000UL, Host, 0x4000UL)], _mappings.Now); // a bridge has no high window
        Write32(config + 0x14, 2);
        Assert.Empty(_mappings.Now); // it does not forward that
        Write32(config + 0x14, 0);
        Assert.NotEmpty(_mappings.Now);
        _mmio.Write(Ecam + (31 << 15) + 0x3E, [0x40]);
        Assert.Empty(_mappings.Now);
        Assert.Equal([0xCu, 0u, 0u, 0u, 0u, 0u], Registers(config));
    }

    [Fact]
    public void A_bar_has_a_length_that_registers_can_hold_and_registers_of_its_own()
    {
        Assert.All((ulong[])[0, 8, 24, 1UL << 32],
            length => Assert.Throws<ArgumentException>(() => Bar.OfRegisters(BarKind.Memory32, length, new Echo())));
        Assert.All((ulong[])[0, 1, 0x1001], length => Assert.Throws<ArgumentException>(() => new HostMapping((nint)Host, length)));
        Assert.Throws<ArgumentException>(() => new HostMapping((nint)Host + 1, 0x1000));
        Bar wide = Bar.OfRegisters(BarKind.Memory64, 16, new Echo()), narrow = Bar.OfRegisters(BarKind.Memory32, 16, new Echo());
        Assert.Throws<ArgumentException>(() => new Card((5, wide)));
        Assert.Throws<ArgumentException>(() => new Card((0, wide), (1, narrow)));
        Assert.Throws<ArgumentException>(() => new Card((1, narrow), (0, wide)));
        Assert.Throws<ArgumentException>(() => new Card((-1, narrow)));
    }

    /// <summary>Any BAR addresses and commands: memory is mapped at most once, over nothing else, and heals.</summary>
    [Fact]
    public void Any_configuration_leaves_at_most_one_place_each_and_none_overlap()
    {
        Card[] cards = [.. Enumerable.Range(0, 3).Select(i => new Card(
            (0, Bar.OfRegisters(BarKind.Memory64, 0x4000, new Echo())),
            (2, Bar.OfMemory(new HostMapping((nint)Host + (i << 24), 0x3000UL << i)))))];
        ulong[] configs = [.. cards.Select(card => Config(_bridge.Add(card, _low, _high)))];
        Random random = new(9);
        int mapped = 0;
        for (int i = 0; i < 50_000; i++)
        {
            ulong config = configs[random.Next(3)];
            switch (random.Next(4))
            {
                case 0:
                    Write32(config + 4, (uint)random.Next(4));
                    break;
                case 1:
                    Write32(config + (random.Next(2) == 0 ? 0x14u : 0x1C), (uint)random.Next(4));
                    break;
                default:
                    Write32(config + (random.Next(2) == 0 ? 0x10u : 0x18), random.Next(20) == 0
                        ? (uint)random.NextInt64(1L << 32)
                        : (uint)random.Next(8) << 13);
                    break;
            }

            mapped += _mappings.Now.Count;
            List<(ulong Start, ulong Length)> places = [(Ecam, 1 << 28)];
            foreach (Card card in cards)
            {
                Place(places, card.MappedBar(0), 0x4000);
                Place(places, card.MappedBar(2), card.MemoryBarLength);
            }

            places.Sort();
            Assert.All(places.Zip(places.Skip(1)), pair => Assert.True(pair.First.Start + pair.First.Length <= pair.Second.Start));
            Assert.Equal(cards.Count(c => c.MappedBar(2) is not null), _mappings.Now.Count);
            Assert.All(_mappings.Now, m => Assert.Contains(cards, c => c.MappedBar(2)?.Value == m.Guest));
        }

        Assert.InRange(mapped, 1000, 150_000);
    }

    [Fact]
    public void An_allocator_gives_the_lowest_aligned_room_and_takes_back()
    {
        BarAllocator bars = new(0x1800, 0x1_0000);
        Assert.Equal(0x2000UL, bars.Take(16, "a"));
        Assert.Equal(0x4000UL, bars.Take(0x4000, "b"));
        Assert.Equal(0x3000UL, bars.Take(0x1000, "c")); // the gap in front of b
        bars.Release(0x2000);
        bars.Release(0x9000); // nobody's
        Assert.Equal(0x2000UL, bars.Take(4096, "d"));
        Assert.Equal(0x8000UL, bars.Take(0x8000, "e"));
        Assert.All((ulong[])[0x1000, 0x8000, 1UL << 40, 1UL << 63], size => Assert.Equal(size == 0x1000, Fits(bars, size)));
    }

    private static bool Fits(BarAllocator bars, ulong size)
    {
        try
        {
            bars.Take(size, "test");
            return true;
        }
        catch (InvalidOperationException)
        {
            return false;
        }
    }

    private static void Place(List<(ulong Start, ulong Length)> places, GuestAddress? at, ulong length)
    {
        if (at is { } start)
        {
            places.Add((start.Value, length));
        }
    }

    private static ulong Config(PciAddress at) => Ecam + ((ulong)at.Bus << 20) + ((ulong)at.Slot << 15);

    private uint[] Registers(ulong config) => [.. Enumerable.Range(0, 6).Select(i => Read32(config + 0x10 + (4 * (ulong)i)))];

    private uint Read32(ulong address)
    {
        byte[] data = new byte[4];
        _mmio.Read(address, data);
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    private void Write32(ulong address, uint value) => _mmio.Write(address, BitConverter.GetBytes(value));

    /// <summary>Answers every read with a number.</summary>
    private sealed class Echo : IBusDevice
    {
        public void Read(ulong offset, Span<byte> data)
        {
            data.Clear();
            BinaryPrimitives.TryWriteUInt32LittleEndian(data, 0x0010_0001);
        }

        public void Write(ulong offset, ReadOnlySpan<byte> data) { }
    }

    private sealed class Card : PciFunction
    {
        internal Card(params (int Index, Bar Bar)[] bars) : base("card", 0x1AF4, 0x1111, 0xFF0000, 0)
        {
            foreach ((int index, Bar bar) in bars)
            {
                AddBar(index, bar);
                MemoryBarLength = bar.Length;
            }
        }

        /// <summary>Of the last one.</summary>
        internal ulong MemoryBarLength { get; }

        internal List<(int, ulong?)> Moves { get; } = [];

        protected override void BarMoved(int bar, GuestAddress? at) => Moves.Add((bar, at?.Value));
    }

    private sealed class Mappings : IBarMappings
    {
        internal List<(ulong Guest, ulong Host, ulong Length)> Now { get; } = [];

        internal bool Refuses { get; set; }

        public bool TryMap(GuestAddress start, nint hostAddress, ulong length, bool isReadOnly)
        {
            Assert.DoesNotContain(Now, m => m.Guest == start.Value);
            if (!Refuses)
            {
                Now.Add((start.Value, (ulong)hostAddress, length));
            }

            return !Refuses;
        }

        public void Unmap(GuestAddress start) => Assert.Equal(1, Now.RemoveAll(m => m.Guest == start.Value));
    }
}
