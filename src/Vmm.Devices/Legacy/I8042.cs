using Vmm.Devices.Bus;

namespace Vmm.Devices.Legacy;

/// <summary>
/// The keyboard controller's one use here: command 0xFE at port 0x64 pulses the reset line. No keyboard is attached. The ports between its two belong to others.
/// </summary>
public sealed class I8042
{
    /// <summary>Its data port.</summary>
    public const ulong DataPort = 0x60;

    /// <summary>Its status and command port.</summary>
    public const ulong CommandPort = 0x64;

    private const byte CommandPulseReset = 0xFE;

    /// <param name="reset">Called on the vCPU thread that asks for it.</param>
    public I8042(Action reset)
    {
        Data = new Port(_ => { });
        Command = new Port(command =>
        {
            if (command == CommandPulseReset)
            {
                reset();
            }
        });
    }

    /// <summary>What is at <see cref="DataPort"/>.</summary>
    public IBusDevice Data { get; }

    /// <summary>What is at <see cref="CommandPort"/>.</summary>
    public IBusDevice Command { get; }

    private sealed class Port(Action<byte> write) : IBusDevice
    {
        public void Read(ulong offset, Span<byte> data) => data.Clear(); // status: both buffers empty

        public void Write(ulong offset, ReadOnlySpan<byte> data) => write(data[0]);
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
