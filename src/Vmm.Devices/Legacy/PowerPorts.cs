using Vmm.Devices.Bus;

namespace Vmm.Devices.Legacy;

/// <summary>Port 0xF4: a write ends the guest; the low eight bits are its exit code. For tests and micro-guests.</summary>
public sealed class DebugExitPort(Action<byte> exit) : IBusDevice
{
    /// <summary>The port.</summary>
    public const ulong Port = 0xF4;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data) => data.Clear();

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data) => exit(data[0]);
}

/// <summary>
/// Sleep control and sleep status registers of a hardware-reduced ACPI machine (ACPI 6.5 section 4.8.3.7), at two ports.
/// </summary>
public sealed class AcpiPowerPorts(Action powerOff) : IBusDevice
{
    /// <summary>First of the ports: control, status.</summary>
    public const ulong Port = 0x600;

    /// <summary>SLP_TYP of S5, as the DSDT's \_S5 says.</summary>
    public const byte SleepTypeS5 = 5;

    private const byte SleepEnable = 0x20;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data) => data.Clear();

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset == 0 && (data[0] & SleepEnable) != 0 && ((data[0] >> 2) & 7) == SleepTypeS5)
        {
            powerOff();
        }
    }
}
