using Vmm.Devices.Acpi;
using Vmm.Devices.Bus;
using Vmm.Devices.Legacy;

namespace Vmm.Devices.Tests.Legacy;

/// <summary>Ways to reset or to power off, debug exit, and the PM timer: exactly which write ends the guest, and no other.</summary>
public sealed class ControlPortTests
{
    [Fact]
    public void Only_command_fe_at_port_64_resets()
    {
        int resets = 0;
        I8042 device = new(() => resets++);
        for (int value = 0; value < 256; value++)
        {
            int before = resets;
            device.Data.Write(0, [(byte)value]);
            Assert.Equal(before, resets);
            device.Command.Write(0, [(byte)value]);
            Assert.Equal(value == 0xFE, resets > before);
        }

        Assert.Equal(1, resets);
    }

    [Fact]
    public void I8042_status_says_both_buffers_are_empty_so_that_a_probe_ends()
    {
        byte[] status = [0xFF];
        new I8042(() => { }).Command.Read(0, status);
        Assert.Equal(0, status[0] & 3);
    }

    [Fact]
    public void Debug_exit_gives_the_low_eight_bits_of_any_width()
    {
        List<byte> codes = [];
        DebugExitPort device = new(codes.Add);
        device.Write(0, [0]);
        device.Write(0, [42, 1]);
        device.Write(0, [255, 1, 2, 3]);
        Assert.Equal([0, 42, 255], codes);
    }

    [Fact]
    public void Only_sleep_type_five_with_enable_powers_off()
    {
        int offs = 0;
        AcpiPowerPorts device = new(() => offs++);
        for (int value = 0; value < 256; value++)
        {
            for (ulong port = 0; port < 2; port++)
            {
                int off = offs;
                device.Write(port, [(byte)value]);
                Assert.Equal(port == 0 && (value & 0x20) != 0 && ((value >> 2) & 7) == 5, offs > off);
            }
        }

        Assert.Equal(16, offs); // bits 0, 1, 6 and 7 of sleep control mean nothing here
    }

    [Fact]
    public void Bit_two_of_a_byte_at_port_cf9_resets_and_other_accesses_reach_the_configuration_ports()
    {
        int resets = 0;
        Recorder ports = new();
        ResetControl device = new(ports, () => resets++);
        for (int value = 0; value < 256; value++)
        {
            int before = resets;
            device.Write(1, [(byte)value]);
            Assert.Equal((value & 4) != 0, resets > before);
            byte[] read = [0xEE];
            device.Read(1, read);
            Assert.Equal(value & 0x0A, read[0]);
        }

        Assert.Empty(ports.Seen);
        device.Write(0, [0xFF, 0xFF, 0xFF, 0xFF]);
        device.Write(1, [0xFF, 0xFF]);
        device.Write(4, [4]);
        device.Read(1, new byte[2]);
        device.Read(5, new byte[1]);
        Assert.Equal(["write 0 4", "write 1 2", "write 4 1", "read 1 2", "read 5 1"], ports.Seen);
    }

    [Fact]
    public void Bit_zero_of_port_92_resets_and_address_line_20_is_always_open()
    {
        int resets = 0;
        SystemControlPortA device = new(() => resets++);
        for (int value = 0; value < 256; value++)
        {
            int before = resets;
            device.Write(0, [(byte)value]);
            Assert.Equal((value & 1) != 0, resets > before);
            byte[] read = [0];
            device.Read(0, read);
            Assert.Equal(2, read[0]);
        }
    }

    [Fact]
    public void The_pm_timer_counts_3579545_times_a_second_and_wraps_at_32_bits()
    {
        Hands clock = new();
        AcpiPmTimer timer = new(clock);
        Assert.Equal(0u, Counter(timer));
        clock.Ticks = 10_000_000; // a second
        Assert.Equal(3_579_545u, Counter(timer));
        clock.Ticks = 3600L * 24 * 365 * 10_000_000;
        Assert.Equal(unchecked((uint)(3600UL * 24 * 365 * 3_579_545)), Counter(timer));
        timer.Write(0, [1, 2, 3, 4]);
        byte[] bytes = new byte[4], one = new byte[1];
        timer.Read(0, bytes);
        for (int i = 0; i < 4; i++)
        {
            timer.Read((ulong)i, one);
            Assert.Equal(bytes[i], one[0]);
        }
    }

    private static uint Counter(AcpiPmTimer timer)
    {
        byte[] bytes = new byte[4];
        timer.Read(0, bytes);
        return BitConverter.ToUInt32(bytes);
    }

    private sealed class Hands : TimeProvider
    {
        public long Ticks { get; set; }

        public override long TimestampFrequency => 10_000_000;

        public override long GetTimestamp() => Ticks;
    }

    private sealed class Recorder : IBusDevice
    {
        public List<string> Seen { get; } = [];

        public void Read(ulong offset, Span<byte> data) => Seen.Add($"read {offset} {data.Length}");

        public void Write(ulong offset, ReadOnlySpan<byte> data) => Seen.Add($"write {offset} {data.Length}");
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Random_accesses_never_throw()
    {
        DeviceFuzz.Run(new I8042(() => { }).Data, ports: 1, seed: 11);
        DeviceFuzz.Run(new I8042(() => { }).Command, ports: 1, seed: 12);
        DeviceFuzz.Run(new DebugExitPort(_ => { }), ports: 4, seed: 13);
        DeviceFuzz.Run(new AcpiPowerPorts(() => { }), ports: 2, seed: 14);
        DeviceFuzz.Run(new SystemControlPortA(() => { }), ports: 1, seed: 15);
        DeviceFuzz.Run(new AcpiPmTimer(new Hands()), ports: 4, seed: 16);
    }
}
