using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.Tests.Virtio;
using Vmm.Devices.Virtio;

namespace Vmm.Devices.Tests.Pci;

/// <summary>Interrupt pins: which line they lead to, and when it is high.</summary>
public sealed class IntxTests : IDisposable
{
    private const ulong Ecam = 0xE000_0000;

    private readonly SmallRam _ram = new();
    private readonly AddressBus _mmio = new("MMIO");
    private readonly BarAllocator _bars = new(0xC000_0000, 1 << 28);
    private readonly Level[] _levels = [new(), new(), new(), new()];
    private readonly PciHostBridge _bridge;

    public IntxTests()
    {
        _bridge = new PciHostBridge(_mmio, (0xDC00_0000u, 32u << 20), (0xDE00_0000u, 32u << 20))
        {
            Lines = [.. _levels.Select(l => new WiredOr(l))],
        };
        _mmio.Map(Ecam, 1 << 28, _bridge.Ecam, "ECAM");
    }

    public void Dispose()
    {
        _bridge.Dispose();
        _ram.Dispose();
    }

    [Fact]
    public void A_pin_turns_with_the_slot_and_once_more_behind_a_bridge()
    {
        foreach ((PciAddress at, int line) in new[]
        {
            (new PciAddress(0, 1), 1), (new PciAddress(0, 4), 0), (new PciAddress(0, 7), 3),
            (new PciAddress(1, 0), 30 % 4), (new PciAddress(1, 3), (30 + 3) % 4),
            (new PciAddress(2, 2), (31 + 2) % 4), (new PciAddress(2, 31), (31 + 3) % 4),
        })
        {
            (VirtioPciFunction function, _) = Add(at);
            Assert.Equal(1u, Read(at, 0x3C) >> 8 & 0xFF);
            function.Transport.SignalQueue(0);
            Assert.Equal([line], Enumerable.Range(0, 4).Where(i => _levels[i].High));
            _bridge.Unplug(at)!.Dispose(); // off the bus it holds no line
            Assert.DoesNotContain(_levels, l => l.High);
        }
    }

    [Fact]
    public void A_shared_line_is_high_until_the_last_function_is_served()
    {
        (VirtioPciFunction one, ulong bar) = Add(new PciAddress(0, 1));
        (VirtioPciFunction other, ulong otherBar) = Add(new PciAddress(0, 5));
        one.Transport.SignalQueue(0);
        other.Transport.SignalConfigChanged();
        Assert.Equal(1, ReadIsr(bar));
        Assert.True(_levels[1].High);
        Assert.Equal(2, ReadIsr(otherBar));
        Assert.False(_levels[1].High);
        Assert.Equal(2, _levels[1].Changes);
    }

    [Fact]
    public void Interrupt_disable_lowers_the_line_and_keeps_the_cause()
    {
        PciAddress at = new(0, 2);
        (VirtioPciFunction function, ulong bar) = Add(at);
        Write(at, 4, 0x0406);
        function.Transport.SignalQueue(0);
        Assert.Equal((false, 1u), (_levels[2].High, Read(at, 4) >> 19 & 1));
        Write(at, 4, 0x0006);
        Assert.True(_levels[2].High);
        Write(at, 4, 0x0406);
        Assert.False(_levels[2].High);
        Assert.Equal(1, ReadIsr(bar));
        Write(at, 4, 0x0006);
        Assert.Equal((false, 0u), (_levels[2].High, Read(at, 4) >> 19 & 1));
    }

    [Fact]
    public void Msix_takes_the_line_over_and_gives_it_back()
    {
        PciAddress at = new(0, 2);
        (VirtioPciFunction function, ulong bar) = Add(at);
        int msix = (int)Read(at, 0x34) & 0xFF;
        while ((byte)Read(at, msix) != 0x11)
        {
            msix = (int)Read(at, msix) >> 8 & 0xFF;
        }

        List<int> changed = []; // of queues whose interrupts somebody else sends
        function.Transport.QueueTriggerChanged = changed.Add;
        function.Transport.SignalQueue(0);
        Assert.True(_levels[2].High);
        Write(at, msix, 0x8000_0000);
        Assert.Equal((false, 2), (_levels[2].High, changed.Count));
        Write(at, msix, 0xC000_0000); // a mask is no change
        Assert.Equal([0, 1], changed);
        function.Transport.SignalConfigChanged(); // a cause that shows, and a message
        Assert.False(_levels[2].High);
        Write(at, msix, 0);
        Assert.Equal((true, 4), (_levels[2].High, changed.Count));
        Assert.Equal(3, ReadIsr(bar));
        Assert.False(_levels[2].High);
    }

    [Fact]
    public void A_reset_of_the_device_or_of_its_bus_lowers_the_line()
    {
        (VirtioPciFunction function, ulong bar) = Add(new PciAddress(1, 0));
        Level level = _levels[30 % 4];
        function.Transport.SignalQueue(0);
        _mmio.Write(bar + 20, [0]);
        Assert.False(level.High);
        function.Transport.SignalQueue(0);
        Assert.True(level.High);
        _mmio.Write(Ecam + (30 << 15) + 0x3E, [0x40]);
        Assert.False(level.High);
    }

    [Fact]
    public void Signals_and_reads_at_once_never_leave_the_line_wrong()
    {
        (VirtioPciFunction function, ulong bar) = Add(new PciAddress(0, 3));
        Thread reader = new(() =>
        {
            for (int seen = 0; seen < 20_000;)
            {
                seen += _levels[3].High && ReadIsr(bar) != 0 ? 1 : 0;
            }
        });
        reader.Start();
        while (reader.IsAlive)
        {
            function.Transport.SignalQueue(0);
        }

        function.Transport.SignalQueue(0);
        Assert.True(_levels[3].High); // whatever came before: a cause is there
        Assert.Equal(1, ReadIsr(bar));
        Assert.False(_levels[3].High);
    }

    [Fact]
    public void Without_lines_there_is_no_pin()
    {
        using PciHostBridge bare = new(new AddressBus("MMIO"));
        VirtioPciFunction function = new("bare", new DummyDevice(), _ram.Memory, new CountingMessages(), null);
        bare.Add(function, new PciAddress(0, 1), _bars);
        byte[] pin = new byte[1];
        bare.Ecam.Read((1 << 15) + 0x3D, pin);
        Assert.Equal(0, pin[0]);
        function.Transport.SignalQueue(0);
    }

    private (VirtioPciFunction Function, ulong Bar) Add(PciAddress at)
    {
        VirtioPciFunction function = new($"at {at}", new DummyDevice(), _ram.Memory, new CountingMessages(), null);
        _bridge.Add(function, at, _bars);
        Write(at, 4, 6);
        return (function, function.MappedBar(0)!.Value.Value);
    }

    private byte ReadIsr(ulong bar)
    {
        Span<byte> isr = stackalloc byte[1];
        _mmio.Read(bar + 0x1000, isr);
        return isr[0];
    }

    private uint Read(PciAddress at, int offset)
    {
        Span<byte> data = stackalloc byte[4];
        _mmio.Read(Place(at, offset), data);
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    private void Write(PciAddress at, int offset, uint value) => _mmio.Write(Place(at, offset), BitConverter.GetBytes(value));

    private static ulong Place(PciAddress at, int offset) => Ecam + ((ulong)at.Bus << 20) + ((ulong)at.Slot << 15) + (ulong)(offset & ~3);

    private sealed class Level : IInterruptLine
    {
        private volatile bool _high;

        public bool High => _high;

        public int Changes { get; private set; }

        public void Set(bool level)
        {
            _high = level;
            Changes++;
        }
    }
}
