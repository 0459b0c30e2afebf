using Vmm.Devices.Legacy;

namespace Vmm.Devices.Tests.Legacy;

/// <summary>i8042 reset, debug exit and the ACPI power ports: exactly which write ends the guest, and no other.</summary>
public sealed class ControlPortTests
{
    [Fact]
    public void Only_command_fe_at_port_64_resets()
    {
        int resets = 0;
        I8042 device = new(() => resets++);
        for (int value = 0; value < 256; value++)
        {
            for (ulong port = 0; port < 5; port++)
            {
                int before = resets;
                device.Write(port, [(byte)value]);
                Assert.Equal(port == 4 && value == 0xFE, resets > before);
            }
        }

        Assert.Equal(1, resets);
    }

    [Fact]
    public void I8042_status_says_both_buffers_are_empty_so_that_a_probe_ends()
    {
        byte[] status = [0xFF];
        new I8042(() => { }).Read(4, status);
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
    public void Only_sleep_type_five_with_enable_powers_off_and_only_the_reset_value_resets()
    {
        int offs = 0, resets = 0;
        AcpiPowerPorts device = new(() => offs++, () => resets++);
        for (int value = 0; value < 256; value++)
        {
            for (ulong port = 0; port < 3; port++)
            {
                (int off, int reset) = (offs, resets);
                device.Write(port, [(byte)value]);
                Assert.Equal(port == 0 && (value & 0x20) != 0 && ((value >> 2) & 7) == 5, offs > off);
                Assert.Equal(port == 2 && value == 1, resets > reset);
            }
        }

        Assert.Equal((16, 1), (offs, resets)); // bits 0, 1, 6 and 7 of sleep control mean nothing here
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Random_accesses_never_throw()
    {
        DeviceFuzz.Run(new I8042(() => { }), ports: 5, seed: 12);
        DeviceFuzz.Run(new DebugExitPort(_ => { }), ports: 4, seed: 13);
        DeviceFuzz.Run(new AcpiPowerPorts(() => { }, () => { }), ports: 3, seed: 14);
    }
}
