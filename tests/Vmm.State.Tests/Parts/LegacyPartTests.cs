using Vmm.Devices;
using Vmm.Devices.Bus;
using Vmm.Devices.Legacy;
using Vmm.Devices.Pci;

namespace Vmm.State.Tests.Parts;

/// <summary>The devices at fixed ports, saved at any point of random accesses.</summary>
public sealed class LegacyPartTests
{
    private static readonly Dictionary<string, Func<Rig>> s_rigs = new(StringComparer.Ordinal)
    {
        ["serial"] = Serial,
        ["rtc"] = Rtc,
        ["keyboard"] = Keyboard,
        ["reset"] = Reset,
        ["hotplug"] = Hotplug,
    };

    public static TheoryData<string> Devices => [.. s_rigs.Keys];

    [Theory]
    [MemberData(nameof(Devices))]
    public void Saved_at_any_point_and_restored_into_a_fresh_one_it_answers_the_same(string device) => SavedAnywhere.Check(s_rigs[device]);

    [Theory]
    [MemberData(nameof(Devices))]
    public void Whatever_a_record_holds_it_is_refused_or_makes_a_device_that_answers(string device) =>
        SavedAnywhere.CheckHostile(s_rigs[device]);

    private static Rig Serial()
    {
        List<string> output = [];
        SerialPort port = new(new LoggedLine("irq4", output), new Sink(output));
        return new Rig
        {
            Part = new RegisterPart<UartStateV1>(new PartId("serial"), DeviceStates.Uart, port.Capture, port.Restore),
            Windows = [(port, 8)],
            Widths = [1],
            LikelyBytes = [0, 1, 2, 3, 7, 0x0F, 0x10, 0x80, 0xC1],
            Host = [random => Send(port, random)],
            Output = output,
        };
    }

    private static void Send(SerialPort port, Random random)
    {
        // Send waits for room; a test must not.
        UartStateV1 state = port.Capture();
        int room = ((state.FifoControl & 1) != 0 ? Uart16550.FifoDepth : 1) - state.ReceiveFifo.Length;
        if (room > 0 && (state.ModemControl & 0x10) == 0)
        {
            port.Send([(byte)random.Next(256)]);
        }
    }

    private static Rig Rtc()
    {
        CmosRtc rtc = new(new FixedTime());
        return new Rig
        {
            Part = new RegisterPart<RtcStateV1>(new PartId("rtc"), DeviceStates.Rtc, rtc.Capture, rtc.Restore),
            Windows = [(rtc, 2)],
            Widths = [1],
            LikelyBytes = [0, 4, 0x0A, 0x0B, 0x0E, 0x32, 0x7F],
        };
    }

    private static Rig Keyboard()
    {
        List<string> output = [];
        I8042 controller = new(() => output.Add("reset"), new LoggedLine("irq1", output));
        return new Rig
        {
            Part = new RegisterPart<KeyboardControllerStateV1>(
                new PartId("keyboard"), DeviceStates.KeyboardController, controller.Capture, controller.Restore),
            Windows = [(controller.Data, 1), (controller.Command, 1)],
            Widths = [1],
            LikelyBytes = [0x20, 0x60, 0xAA, 0xAD, 0xAE, 0xD4, 0xED, 0xF0, 0xF2, 0xF4, 0xF5, 0xFF, 0x01],
            Host = [_ => controller.PressWakeKey()],
            Output = output,
        };
    }

    private static Rig Reset()
    {
        List<string> output = [];
        ResetControl control = new(new Nothing(), () => output.Add("reset"));
        return new Rig
        {
            Part = new RegisterPart<ResetControlStateV1>(
                new PartId("reset-control"), DeviceStates.ResetControl, control.Capture, control.Restore),
            Windows = [(control, 8)],
            LikelyBytes = [2, 4, 6, 8, 0x0E],
            Output = output,
        };
    }

    private static Rig Hotplug()
    {
        List<string> output = [];
        PciHotplugPorts ports = new(new LoggedLine("gsi23", output), slot => output.Add($"eject {slot}"));
        return new Rig
        {
            Part = new RegisterPart<PciHotplugStateV1>(new PartId("hotplug/0"), DeviceStates.PciHotplug, ports.Capture, ports.Restore),
            Windows = [(ports, (int)PciHotplugPorts.Length)],
            Widths = [4, 4, 4, 1],
            Host =
            [
                random => ports.Added(random.Next(32)), random => ports.Allow(random.Next(32)), random => ports.Changed(random.Next(32)),
                random => output.Add($"asked {ports.AskRemoval(random.Next(32))}"),
                random => output.Add($"taken {ports.Take(random.Next(32))}"),
            ],
            Output = output,
        };
    }

    private sealed class FixedTime : TimeProvider
    {
        public override DateTimeOffset GetUtcNow() => new(2026, 11, 28, 13, 45, 59, TimeSpan.Zero);
    }

    private sealed class Nothing : IBusDevice
    {
        public void Read(ulong offset, Span<byte> data) => data.Fill(0xFF);

        public void Write(ulong offset, ReadOnlySpan<byte> data)
        {
            // Nothing is there.
        }
    }

    private sealed class Sink(List<string> output) : ISerialSink
    {
        public void Write(ReadOnlySpan<byte> bytes) => output.Add($"out {Convert.ToHexString(bytes)}");
    }
}
