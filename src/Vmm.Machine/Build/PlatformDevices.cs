using Vmm.Devices.Acpi;
using Vmm.Devices.Bus;
using Vmm.Devices.Legacy;
using Vmm.LifeCycle;
using Vmm.Machine.Run;
using Vmm.Spec;

namespace Vmm.Machine.Build;

/// <summary>The devices at fixed ports that every machine has, and those that a spec leaves out.</summary>
internal sealed class PlatformDevices
{
    internal const uint KeyboardGsi = 1, PowerButtonGsi = 3, SerialGsi = 4, HotplugGsi = 23;

    internal PlatformDevices(Board board, GuestPanics panics)
    {
        AddressBus ports = board.Ports;
        PowerButton = board.Interrupts.CreateLine(PowerButtonGsi);
        if (board.Spec.Serial)
        {
            ISerialSink sink = IsConsoleOnSerial(board.Spec) ? new ConsoleSink(board.Console) : new NoSink();
            Serial = board.Own(new SerialPort(board.Interrupts.CreateLine(SerialGsi), sink));
            ports.Map(0x3F8, 8, Serial, "serial port");
        }

        if (board.Spec.DebugExit)
        {
            DebugExitPort exit = new(code => board.End.Decide(new RunResult(ExitReason.DebugExit, code)));
            ports.Map(DebugExitPort.Port, 4, exit, "debug exit");
        }

        // Not 0x61: speaker and gate of the timer belong to the kernel's PIT.
        Keyboard = new I8042(board.Reset, board.Interrupts.CreateLine(KeyboardGsi));
        ports.Map(I8042.DataPort, 1, Keyboard.Data, "i8042 data");
        ports.Map(I8042.CommandPort, 1, Keyboard.Command, "i8042 command");
        ports.Map(0x70, 2, Rtc, "RTC");
        ports.Map(SystemControlPortA.Port, 1, new SystemControlPortA(board.Reset), "system control port A");
        ports.Map(AcpiPowerPorts.Port, 2, new AcpiPowerPorts(() => board.End.Decide(new RunResult(ExitReason.PowerOff))), "ACPI power");
        ports.Map(AcpiPmTimer.Port, AcpiPmTimer.Length, new AcpiPmTimer(board.Clock), "ACPI PM timer");
        if (board.Spec.PvPanic)
        {
            ports.Map(PvPanic.Port, 1, new PvPanic(panics.Panicked), "pvpanic");
        }
    }

    /// <summary>The ACPI power button.</summary>
    internal IInterruptLine PowerButton { get; }

    /// <summary>The serial port; null when the spec has none.</summary>
    internal SerialPort? Serial { get; }

    /// <summary>The keyboard.</summary>
    internal I8042 Keyboard { get; }

    /// <summary>The clock of the platform.</summary>
    internal CmosRtc Rtc { get; } = new();

    /// <summary>The console is connected to the serial port.</summary>
    internal static bool IsConsoleOnSerial(VmSpec spec) => spec.Serial && spec.Console != ConsoleKind.Virtio;
}
