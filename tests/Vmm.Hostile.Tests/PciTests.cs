using System.Buffers.Binary;

namespace Vmm.Hostile.Tests;

/// <summary>
/// Drivers that abuse a virtio-pci function: its configuration space, BAR, windows and MSI-X (virtio 1.2 section 4.1, PCI Express base
/// specification).
/// </summary>
public sealed class PciTests : IDisposable
{
    private const ulong Isr = PciPort.IsrAt, Table = PciPort.TableAt, Pending = PciPort.PendingAt;
    private readonly BlkBench _bench = new();
    private readonly DeviceGuest _guest;
    private readonly PciPort _port;

    public PciTests()
    {
        _guest = new DeviceGuest(_bench.Device, TransportKind.Pci);
        _port = (PciPort)_guest.Port;
    }

    public void Dispose()
    {
        _port.EnableBus();
        _bench.Heal(_guest);
        _guest.Dispose();
        _bench.Dispose();
    }

    /// <summary>
    /// Registers of the common configuration that only the device writes: num_queues, config_generation, queue_notify_off, device_feature
    /// (4.1.4.3).
    /// </summary>
    [Theory]
    [InlineData(4, 4)]
    [InlineData(18, 2)]
    [InlineData(21, 1)]
    [InlineData(30, 2)]
    public void What_is_read_only_stays(int register, int length)
    {
        uint before = _port.Read((ulong)register, length);
        _port.Write((ulong)register, length, ~before);
        Assert.Equal(before, _port.Read((ulong)register, length));
    }

    /// <summary>4.1.3.1: fields are accessed at their width. What is not a field reads as zero and takes nothing.</summary>
    [Theory]
    [InlineData(1, 1)]
    [InlineData(2, 2)]
    [InlineData(3, 4)]
    [InlineData(17, 1)]
    [InlineData(23, 1)]
    [InlineData(33, 1)]
    [InlineData(35, 2)]
    [InlineData(37, 4)]
    [InlineData(54, 2)]
    [InlineData(55, 1)]
    [InlineData(56, 4)]
    [InlineData(60, 4)]
    [InlineData(0xFFC, 4)]
    public void The_middle_of_a_field_is_no_field(int register, int length)
    {
        _port.Select(0);
        _port.Place(0x1000, 0x2000, 0x3000);
        _port.Write((ulong)register, length, uint.MaxValue);
        Assert.Equal(0u, _port.Read((ulong)register, length));
        Assert.Equal((0x1000u, 0x2000u, 0x3000u), (_port.Read(32, 4), _port.Read(40, 4), _port.Read(48, 4)));
        Assert.Equal(0u, _port.Read(0, 4));
    }

    /// <summary>Windows beyond the features there are read as zero and take nothing (4.1.4.3).</summary>
    [Theory]
    [InlineData(2u)]
    [InlineData(0x1_0000u)]
    [InlineData(uint.MaxValue)]
    public void Feature_windows_that_do_not_exist(uint window)
    {
        _port.Write(0, 4, window);
        Assert.Equal((window, 0u), (_port.Read(0, 4), _port.Read(4, 4)));
        _port.Write(8, 4, window);
        _port.Write(12, 4, uint.MaxValue);
        Assert.Equal(0u, _port.Read(12, 4));
        _port.Write(8, 4, 0);
        Assert.Equal(0u, _port.Read(12, 4));
    }

    /// <summary>4.1.5.1.2.1: a vector that the device has not reads back as NO_VECTOR.</summary>
    [Theory]
    [InlineData(16, 3u)]
    [InlineData(16, 0x7FFu)]
    [InlineData(16, 0xFFFEu)]
    [InlineData(16, 0xFFFFu)]
    [InlineData(26, 3u)]
    [InlineData(26, 0x800u)]
    [InlineData(26, 0xFFFEu)]
    [InlineData(26, 0xFFFFu)]
    public void Vectors_that_do_not_exist(int register, uint vector)
    {
        _port.Select(1);
        _port.Write((ulong)register, 2, 1);
        Assert.Equal(1u, _port.Read((ulong)register, 2));
        _port.Write((ulong)register, 2, vector);
        Assert.Equal(0xFFFFu, _port.Read((ulong)register, 2));
    }

    /// <summary>
    /// 4.1.4.3.2: the driver must not write zero to queue_enable; the queue stays enabled. Other values than one enable nothing.
    /// </summary>
    [Theory]
    [InlineData(0u, true)]
    [InlineData(2u, true)]
    [InlineData(0u, false)]
    [InlineData(2u, false)]
    [InlineData(0xFFFFu, false)]
    public void Queue_enable_takes_one_and_nothing_else(uint value, bool enabled)
    {
        _port.Select(0);
        if (enabled)
        {
            _port.Enabled = true;
        }

        _port.Write(28, 2, value);
        Assert.Equal(enabled, _port.Enabled);
    }

    /// <summary>
    /// The BAR where it must not be (7.5.1.2.1): nowhere, at the top, on top of another window. The device answers at its place again.
    /// </summary>
    [Theory]
    [InlineData(0u)]
    [InlineData(0xFFFF_FFFFu)]
    [InlineData(0xFFFF_8000u)]
    [InlineData(0xE000_0000u)]
    [InlineData(0xEFFF_8000u)]
    [InlineData(0xC000_7FFFu)]
    public void The_bar_in_strange_places(uint address)
    {
        _guest.Start();
        _port.PutConfig(0x10, 4, address);
        uint expected = address & 0xFFFF_8000;
        Assert.Equal(expected | 4, _port.Config(0x10));
        Assert.Equal(expected == PciPort.Bar ? 15u : 0xFFu, _port.Read(20, 1));
        Assert.Equal(0x1042_1AF4u, _port.Config(0));
        _port.PutConfig(0x10, 4, (uint)PciPort.Bar);
        foreach (uint high in (uint[])[1, 0xFFFF_FFFF, 0x8000_0000, 0x000F_FFFF])
        {
            _port.PutConfig(0x14, 4, high);
            Assert.Equal((high, 0xFFu), (_port.Config(0x14), _port.Read(20, 1)));
        }

        _port.PutConfig(0x14, 4, 0);
        _bench.ServeAll(_guest); // moved, not reset
    }

    [Fact]
    public void Memory_decoding_off_hides_the_registers_and_stops_nothing()
    {
        _guest.Start();
        _port.PutConfig(4, 2, 4);
        Assert.Equal(0xFFFF_FFFFu, _port.Read(0, 4));
        _port.Write(20, 1, 0); // reaches nobody
        _port.PutConfig(4, 2, 6);
        Assert.Equal(15, _port.Status);
        _bench.ServeAll(_guest);
    }

    /// <summary>Bus mastering off while queues are served: they stop, and only a reset brings them back.</summary>
    [Fact]
    public void Bus_master_off_under_way()
    {
        _guest.Start();
        _bench.ServeAll(_guest);
        _port.PutConfig(4, 2, 2);
        Assert.Equal(0x4F, _port.Status);
        int before = _port.Sent.Values.Sum();
        _guest.Post(0, _bench.Good(_guest, 0));
        Thread.Sleep(3);
        Assert.Equal((0, before), (_guest.UsedCount(0), _port.Sent.Values.Sum()));
        _port.PutConfig(4, 2, 6);
        Assert.Equal(0x4F, _port.Status);
    }

    [Fact]
    public void Bus_master_on_and_off_a_hundred_times()
    {
        for (int i = 0; i < 100; i++)
        {
            _port.PutConfig(4, 2, 2);
            _port.PutConfig(4, 2, 6);
            _port.Status = (byte)(i % 3 == 0 ? 15 : 0);
        }
    }

    /// <summary>Header fields that software must not change (7.5.1.1).</summary>
    [Theory]
    [InlineData(0x00)]
    [InlineData(0x08)]
    [InlineData(0x1C)]
    [InlineData(0x18)]
    [InlineData(0x20)]
    [InlineData(0x24)]
    [InlineData(0x28)]
    [InlineData(0x2C)]
    [InlineData(0x30)]
    [InlineData(0x34)]
    [InlineData(0x38)]
    [InlineData(0x40)]
    [InlineData(0xF0)]
    [InlineData(0x100)]
    [InlineData(0xFFC)]
    public void The_header_is_not_for_the_driver_to_write(int register)
    {
        uint before = _port.Config(register);
        _port.PutConfig(register, 4, ~before);
        Assert.Equal(before, _port.Config(register));
    }

    /// <summary>Accesses over the end of the space, of functions and buses that do not exist: all ones, and no harm.</summary>
    [Theory]
    [InlineData(0xFFEUL, 4)]
    [InlineData(0xFFFUL, 2)]
    [InlineData(0x1000UL, 4)]
    [InlineData(0x7000UL, 4)]
    [InlineData(0x1F_8000UL - 0x8000, 4)]
    [InlineData(0x10_0000UL, 4)]
    [InlineData(0xFFF_FFFCUL - 0x8000, 4)]
    public void Configuration_space_of_nobody(ulong offset, int length)
    {
        byte[] data = new byte[length];
        _port.Bus.Write(PciPort.Slot + offset, data);
        _port.Bus.Read(PciPort.Slot + offset, data);
        Assert.All(data, b => Assert.Equal(0xFF, b));
    }

    /// <summary>
    /// The configuration access window (4.1.4.9) of the wrong BAR, off the end, misaligned, or of a length that there is not: no access.
    /// </summary>
    [Theory]
    [InlineData(1u, 0x2000u, 4u)]
    [InlineData(255u, 0x2000u, 4u)]
    [InlineData(0u, 0x8000u, 4u)]
    [InlineData(0u, 0xFFFF_FFFCu, 4u)]
    [InlineData(0u, 0x2001u, 2u)]
    [InlineData(0u, 0x2002u, 4u)]
    [InlineData(0u, 0x2000u, 0u)]
    [InlineData(0u, 0x2000u, 3u)]
    [InlineData(0u, 0x2000u, 8u)]
    [InlineData(0u, 0x2000u, uint.MaxValue)]
    public void The_window_onto_nothing(uint bar, uint offset, uint length)
    {
        int window = _port.Capability(9, 5);
        Place(window, bar, offset, length);
        _port.PutConfig(window + 16, 4, 0x1234_5678);
        Assert.Equal(0x1234_5678u, _port.Config(window + 16)); // only the register itself
    }

    /// <summary>Everything can be done through the window that can be done in the BAR, a reset too.</summary>
    [Theory]
    [InlineData(20u, 1u, 15u)]
    [InlineData(18u, 2u, 2u)]
    [InlineData(0x2000u, 4u, 128u)]
    public void The_window_onto_a_register(uint offset, uint length, uint expected)
    {
        _guest.Start();
        int window = _port.Capability(9, 5);
        Place(window, 0, offset, length);
        Assert.Equal(expected, _port.Config(window + 16));
        Place(window, 0, 20, 1);
        _port.PutConfig(window + 16, 4, 0);
        Assert.Equal(0, _port.Status);
    }

    /// <summary>
    /// The ISR register is one byte that reading clears (4.1.4.5): what lies behind it clears nothing, and writing does nothing.
    /// </summary>
    [Theory]
    [InlineData(1UL, 1)]
    [InlineData(4UL, 4)]
    [InlineData(0xFFCUL, 4)]
    public void Beside_isr_there_is_nothing(ulong offset, int length)
    {
        BreakDevice();
        Assert.Equal(0u, _port.Read(Isr + offset, length));
        _port.Write(Isr, 1, 0);
        _port.Write(Isr, 4, uint.MaxValue);
        Assert.Equal(2u, _port.Read(Isr, 4));
        Assert.Equal(0u, _port.Read(Isr, 1));
    }

    [Theory]
    [InlineData(false, 3u)]
    [InlineData(true, 2u)]
    public void Isr_tells_of_queues_only_without_msix(bool msix, uint expected)
    {
        _port.PutConfig(_port.Capability(0x11) + 2, 2, msix ? 0x8000u : 0);
        _guest.Start();
        _bench.Serve(_guest, 0);
        _guest.Put(0, 0, DeviceGuest.Data, 8, DeviceGuest.Next, 0);
        _guest.Offer(0, 0);
        _guest.Kick(0);
        _guest.Wait(() => _guest.Broken, "no reset is asked for");
        Thread.Sleep(5); // the bit is set behind the status
        Assert.Equal(msix ? 0u : 1, _port.Config(4) >> 19 & 1);
        Assert.Equal(expected, _port.Read(Isr, 1));
        Assert.Equal((0u, 0u), (_port.Read(Isr, 1), _port.Config(4) >> 19 & 1));
    }

    /// <summary>Notifications of any width anywhere in their region (4.1.4.4): the queue's are heard, the rest is nothing.</summary>
    [Theory]
    [InlineData(0UL, 1)]
    [InlineData(0UL, 4)]
    [InlineData(3UL, 1)]
    [InlineData(8UL, 2)]
    [InlineData(0xFFCUL, 4)]
    public void Notifications_of_any_width(ulong offset, int length)
    {
        _guest.Start();
        _bench.ServeAll(_guest);
        _port.Write(PciPort.NotifyAt + offset, length, 0xFFFF_FFFF);
        Assert.Equal(0u, _port.Read(PciPort.NotifyAt + offset, length));
        _bench.ServeAll(_guest);
    }

    /// <summary>MSI-X table accesses other than aligned 4 and 8 bytes (6.1.4.2), and beyond the last vector, change nothing.</summary>
    [Theory]
    [InlineData(0UL, 1)]
    [InlineData(0UL, 2)]
    [InlineData(2UL, 4)]
    [InlineData(46UL, 4)]
    [InlineData(48UL, 4)]
    [InlineData(0xFFCUL, 4)]
    [InlineData(0x1FFCUL, 4)]
    public void Odd_accesses_of_the_vector_table(ulong offset, int length)
    {
        byte[] before = new byte[48], after = new byte[48];
        ReadTable(before);
        _port.Write(Table + offset, length, uint.MaxValue);
        ReadTable(after);
        Assert.Equal(before, after);
        if (offset >= 48)
        {
            Assert.Equal(0u, _port.Read(Table + offset, 4));
        }
    }

    /// <summary>Pending bits are the device's.</summary>
    [Theory]
    [InlineData(0UL)]
    [InlineData(4UL)]
    [InlineData(0x1FFCUL)]
    public void Pending_bits_are_not_written(ulong offset)
    {
        _port.Write(Pending + offset, 4, uint.MaxValue);
        Assert.Equal(0u, _port.Read(Pending + offset, 4));
    }

    [Fact]
    public void Reserved_bits_of_the_vector_control_stay_zero_and_low_address_bits_too()
    {
        _port.Write(Table + 12, 4, 0xFFFF_FFFF);
        _port.Write(Table, 4, 0xFEE0_0003);
        Assert.Equal((1u, 0xFEE0_0000u), (_port.Read(Table + 12, 4), _port.Read(Table, 4)));
    }

    /// <summary>Function mask and vector mask in any order lose no interrupt and send none twice.</summary>
    [Theory]
    [InlineData(true, true)]
    [InlineData(true, false)]
    [InlineData(false, true)]
    public void A_message_that_met_a_mask_is_sent_once_when_the_last_one_goes(bool function, bool vector)
    {
        int control = _port.Capability(0x11) + 2;
        _guest.Start();
        _port.PutConfig(control, 2, function ? 0xC000u : 0x8000);
        _port.Write(Table + 28, 4, vector ? 1u : 0);
        int before = _port.Sent.GetValueOrDefault(1);
        _bench.Serve(_guest, 0);
        _bench.Serve(_guest, 0);
        _guest.Wait(() => _port.Read(Pending, 4) == 2, "no pending bit");
        Assert.Equal(before, _port.Sent.GetValueOrDefault(1));
        _port.PutConfig(control, 2, 0x8000);
        _port.Write(Table + 28, 4, 0);
        Assert.Equal((before + 1, 0u), (_port.Sent.GetValueOrDefault(1), _port.Read(Pending, 4)));
    }

    /// <summary>
    /// Whatever the driver does to message control, command, ISR and status: the pin is high exactly while a cause waits that it may be
    /// told of (virtio 1.2, 4.1.5.4; PCI Express base spec 7.5.1.1.3).
    /// </summary>
    [Fact]
    public void The_interrupt_pin_is_never_high_without_a_cause()
    {
        Random random = new(13);
        int control = _port.Capability(0x11) + 2, high = 0;
        for (int i = 0; i < 20_000; i++)
        {
            switch (random.Next(6))
            {
                case 0:
                    _port.PutConfig(control, 2, random.Next(4) == 0 ? 0x8000u : 0);
                    break;
                case 1:
                    _port.PutConfig(4, 2, random.Next(3) == 0 ? 0x406u : 6);
                    break;
                case 2:
                    _ = _port.Read(Isr, 1);
                    break;
                case 3:
                    _port.Write(20, 1, 0);
                    break;
                case 4:
                    _port.Transport.SignalConfigChanged();
                    break;
                default:
                    _port.Transport.SignalQueue(0);
                    break;
            }

            bool allowed = (_port.Config(4, 2) & 0x400) == 0, cause = (_port.Config(6, 2) & 8) != 0;
            Assert.Equal(allowed && cause, _port.IsPinHigh);
            high += _port.IsPinHigh ? 1 : 0;
        }

        Assert.InRange(high, 1000, 19_000);
    }

    [Fact]
    public void A_vector_that_is_moved_while_requests_are_served_loses_none()
    {
        _guest.Start();
        for (uint i = 0; i < 50; i++)
        {
            _port.Write(Table + 28, 4, 1);
            _port.Write(Table + 24, 4, i);
            int head = _guest.Post(0, _bench.Good(_guest, 0));
            _port.Write(Table + 28, 4, 0);
            _bench.Answered(_guest, 0, head);
            Assert.Equal(i, _port.Routes[1].Data);
        }
    }

    /// <summary>The capability list is finite, and nothing in it is moved by writes.</summary>
    [Fact]
    public void The_capability_list_survives_a_driver_that_writes_all_over_it()
    {
        List<int> before = Walk();
        for (int register = 0x40; register < 0x100; register++)
        {
            _port.PutConfig(register, 1, 0xFF);
        }

        Assert.Equal(before, Walk());
        _port.PutConfig(_port.Capability(0x11) + 2, 2, 0);
    }

    /// <summary>
    /// Configuration ports (PCI 3.0, 3.2.2.3.2): addresses without the enable bit, other buses and functions, odd widths.
    /// </summary>
    [Theory]
    [InlineData(0x0000_0800u, 0, 4)]
    [InlineData(0x8001_0800u, 0, 4)]
    [InlineData(0x8000_0900u, 0, 4)]
    [InlineData(0x8000_F800u, 0, 4)]
    [InlineData(0x7F00_0800u, 0, 4)]
    [InlineData(0x0000_0800u, 2, 2)]
    [InlineData(0x8000_0B00u, 3, 1)]
    public void Configuration_ports_of_nobody(uint address, int offset, int length)
    {
        Span<byte> data = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(data, address);
        _port.Ports.Write(0xCF8, data);
        _port.Ports.Write(0xCFC + (ulong)offset, data[..length]);
        _port.Ports.Read(0xCFC + (ulong)offset, data[..length]);
        Assert.Equal(-1, data[..length].IndexOfAnyExcept((byte)0xFF));
        Assert.Equal(0x1042_1AF4u, _port.Config(0));
    }

    private void BreakDevice()
    {
        _guest.Start();
        _guest.Put(0, 0, DeviceGuest.Data, 8, DeviceGuest.Next, 0);
        _guest.Offer(0, 0);
        _guest.Kick(0);
        _guest.WaitNeedsReset();
    }

    private void Place(int window, uint bar, uint offset, uint length)
    {
        _port.PutConfig(window + 4, 1, bar);
        _port.PutConfig(window + 8, 4, offset);
        _port.PutConfig(window + 12, 4, length);
    }

    private void ReadTable(byte[] into)
    {
        for (int at = 0; at < into.Length; at += 4)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(into.AsSpan(at), _port.Read(Table + (ulong)at, 4));
        }
    }

    private List<int> Walk()
    {
        List<int> found = [];
        for (int at = (int)_port.Config(0x34, 1); at != 0; at = (int)_port.Config(at + 1, 1))
        {
            found.Add(at);
            found.Add((int)_port.Config(at, 1));
            Assert.True(found.Count < 64, "the capability list loops");
        }

        return found;
    }
}
