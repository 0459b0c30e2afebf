using Vmm.Devices.Virtio;

namespace Vmm.Hostile.Tests;

/// <summary>Drivers that abuse the register window of virtio-mmio (virtio 1.2 section 4.2).</summary>
public sealed class MmioTests : IDisposable
{
    private readonly BlkBench _bench = new();
    private readonly DeviceGuest _guest;
    private readonly MmioPort _port;

    public MmioTests()
    {
        _guest = new DeviceGuest(_bench.Device, TransportKind.Mmio);
        _port = (MmioPort)_guest.Port;
    }

    public void Dispose()
    {
        _bench.Heal(_guest);
        _guest.Dispose();
        _bench.Dispose();
    }

    /// <summary>Identity, offered features, maximum size, causes, generation and absent shared memory are the device's (4.2.2).</summary>
    [Theory]
    [InlineData(0x00UL, 0x7472_6976u)]
    [InlineData(0x04UL, 2u)]
    [InlineData(0x08UL, 2u)]
    [InlineData(0x34UL, 64u)]
    [InlineData(0x60UL, 0u)]
    [InlineData(0xB0UL, uint.MaxValue)]
    [InlineData(0xB4UL, uint.MaxValue)]
    [InlineData(0xB8UL, uint.MaxValue)]
    [InlineData(0xBCUL, uint.MaxValue)]
    [InlineData(0xFCUL, 0u)]
    public void What_is_read_only_stays(ulong register, uint value)
    {
        Assert.Equal(value, _port.Read(register));
        _port.Write(register, ~value);
        Assert.Equal(value, _port.Read(register));
    }

    /// <summary>Registers that only the driver writes, and offsets that are none, read as zero.</summary>
    [Theory]
    [InlineData(0x14UL)]
    [InlineData(0x20UL)]
    [InlineData(0x24UL)]
    [InlineData(0x30UL)]
    [InlineData(0x38UL)]
    [InlineData(0x50UL)]
    [InlineData(0x64UL)]
    [InlineData(0x80UL)]
    [InlineData(0x90UL)]
    [InlineData(0xA4UL)]
    [InlineData(0xC0UL)]
    [InlineData(0xC8UL)]
    [InlineData(0xF8UL)]
    public void What_is_write_only_or_nothing_reads_as_zero(ulong register)
    {
        Assert.Equal(0u, _port.Read(register));
        if (register is 0xC0 or 0xC8 or 0xF8)
        {
            _port.Write(register, uint.MaxValue);
            Assert.Equal(0u, _port.Read(register));
        }
    }

    /// <summary>4.2.2.2: registers are accessed with 32 bits; other widths read as zero and write nothing.</summary>
    [Theory]
    [InlineData(0x70UL, 1)]
    [InlineData(0x70UL, 2)]
    [InlineData(0x72UL, 1)]
    [InlineData(0x44UL, 1)]
    [InlineData(0x00UL, 2)]
    [InlineData(0x50UL, 2)]
    public void Other_widths_are_no_access(ulong register, int length)
    {
        _guest.Start();
        _port.Write(register, 0, length);
        Assert.Equal(0u, _port.Read(register, length));
        Assert.Equal(15, _port.Status);
        _bench.ServeAll(_guest);
    }

    [Theory]
    [InlineData(0x71UL)]
    [InlineData(0x6EUL)]
    [InlineData(0x73UL)]
    [InlineData(0x43UL)]
    public void Misaligned_registers_are_none(ulong register)
    {
        _guest.Start();
        _port.Write(register, 0);
        _port.Write(register, uint.MaxValue);
        Assert.Equal(0u, _port.Read(register));
        Assert.Equal(15, _port.Status);
        _bench.ServeAll(_guest);
    }

    /// <summary>Only zero resets (4.2.2): a value whose low byte is zero is no status at all.</summary>
    [Theory]
    [InlineData(0x100u)]
    [InlineData(0xFFFF_FF00u)]
    [InlineData(0x8000_0000u)]
    public void A_low_byte_of_zero_is_no_reset(uint value)
    {
        _guest.Start();
        _port.Write(0x70, value);
        Assert.Equal(15, _port.Status);
        _bench.ServeAll(_guest);
    }

    /// <summary>QueueReady is one bit (4.2.2): other bits mean nothing.</summary>
    [Theory]
    [InlineData(2u, 0u)]
    [InlineData(0xFFFF_FFFEu, 0u)]
    [InlineData(0xFFFF_FFFFu, 1u)]
    public void QueueReady_is_one_bit(uint value, uint expected)
    {
        _port.Select(0);
        _port.Write(0x44, value);
        Assert.Equal(expected, _port.Read(0x44));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void A_queue_that_is_taken_away_stops_the_device(int queue)
    {
        _guest.Start();
        _bench.ServeAll(_guest);
        _port.Select((uint)queue);
        _port.Write(0x44, 0);
        Assert.Contains($"queue {queue}", _guest.WaitNeedsReset(), StringComparison.Ordinal);
        _guest.Post(0, _bench.Good(_guest, 0));
        _guest.Watch();
        Thread.Sleep(3);
        _guest.AssertContained();
        Assert.Equal(0, _guest.UsedCount(0));
    }

    /// <summary>InterruptACK takes back what it names, and nothing else (4.2.2).</summary>
    [Theory]
    [InlineData(0u, 2u)]
    [InlineData(1u, 2u)]
    [InlineData(0xFFFF_FFFDu, 2u)]
    [InlineData(2u, 0u)]
    [InlineData(uint.MaxValue, 0u)]
    public void InterruptACK_takes_back_what_it_names(uint acknowledged, uint left)
    {
        _port.Select(0);
        _guest.Plans[0].Table = 0xFFFF_0000_0000;
        _guest.Start();
        _guest.WaitNeedsReset();
        Assert.Equal(2u, _port.Read(0x60));
        _port.Write(0x64, acknowledged);
        Assert.Equal(left, _port.Read(0x60));
    }

    [Fact]
    public void A_driver_that_never_acknowledges_gets_a_pulse_for_each_cause()
    {
        _guest.Features &= ~VirtioFeatures.EventIndex;
        _guest.Start();
        int before = _port.Pulses;
        for (int i = 0; i < 20; i++)
        {
            _bench.Serve(_guest, i % 2);
        }

        _guest.Wait(() => _port.Pulses >= before + 20, "interrupts are missing");
        Assert.Equal(1u, _port.Read(0x60));
    }

    /// <summary>The selectors of features and queues take any value.</summary>
    [Theory]
    [InlineData(2u)]
    [InlineData(0x1_0000u)]
    [InlineData(uint.MaxValue)]
    public void Windows_and_queues_that_do_not_exist(uint selector)
    {
        _port.Write(0x14, selector);
        Assert.Equal(0u, _port.Read(0x10));
        _port.Write(0x24, selector);
        _port.Write(0x20, uint.MaxValue);
        _port.Write(0x30, selector);
        _port.Write(0x38, 8);
        _port.Write(0x44, 1);
        Assert.Equal((0u, 0u), (_port.Read(0x34), _port.Read(0x44)));
        _port.Write(0x50, selector);
    }

    /// <summary>Accesses over the end of the window are nobody's.</summary>
    [Theory]
    [InlineData(0x1FDUL)]
    [InlineData(0x1FFUL)]
    [InlineData(0x200UL)]
    public void Over_the_end_of_the_window(ulong register)
    {
        _port.Write(register, 0);
        Assert.Equal(uint.MaxValue, _port.Read(register));
    }

    /// <summary>The configuration space may be read at any width (4.2.2.2); 64 bits come in one.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(4)]
    [InlineData(8)]
    public void The_configuration_space_at_any_width(int length)
    {
        byte[] whole = new byte[64], pieces = new byte[64];
        for (int at = 0; at < 64; at += 8)
        {
            _port.ReadConfig(at, whole.AsSpan(at, 8));
        }

        for (int at = 0; at < 64; at += length)
        {
            _port.ReadConfig(at, pieces.AsSpan(at, length));
        }

        Assert.Equal(whole, pieces);
        Assert.Equal(BlkBench.Sectors, BitConverter.ToInt32(whole));
    }
}
