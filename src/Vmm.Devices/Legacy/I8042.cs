using Vmm.Devices.Bus;

namespace Vmm.Devices.Legacy;

/// <summary>The keyboard controller's one use here: command 0xFE at port 0x64 pulses the reset line. No keyboard is attached.</summary>
public sealed class I8042(Action reset) : IBusDevice
{
    private const byte CommandPulseReset = 0xFE;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data) => data.Clear(); // status: both buffers empty

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset == 4 && data[0] == CommandPulseReset)
        {
            reset();
        }
    }
}

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
/// Sleep control, sleep status and reset registers of a hardware-reduced ACPI machine (ACPI 6.5 sections 4.8.3.6, 4.8.3.7), at three ports.
/// </summary>
public sealed class AcpiPowerPorts(Action powerOff, Action reset) : IBusDevice
{
    /// <summary>First of the ports: control, status, reset.</summary>
    public const ulong Port = 0x600;

    /// <summary>SLP_TYP of S5, as the DSDT's \_S5 says.</summary>
    public const byte SleepTypeS5 = 5;

    /// <summary>What the reset register wants to see.</summary>
    public const byte ResetValue = 1;

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
        else if (offset == 2 && data[0] == ResetValue)
        {
            reset();
        }
    }
}
