using Vmm.Devices;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.Virtio;

namespace Vmm.State.Tests.Parts;

/// <summary>Configuration, BARs, message vectors and virtio registers, saved at any point of random accesses.</summary>
public sealed class PciPartTests
{
    private const uint Window = 0xC000_0000, Behind = 0xD000_0000;

    [Fact]
    public void Saved_at_any_point_a_virtio_pci_device_answers_the_same() => SavedAnywhere.Check(Pci, runs: 400, longest: 120);

    [Fact]
    public void Whatever_the_records_hold_a_virtio_pci_device_answers() => SavedAnywhere.CheckHostile(Pci, runs: 1500);

    [Fact]
    public void Saved_at_any_point_a_virtio_mmio_device_answers_the_same() => SavedAnywhere.Check(Mmio, runs: 400, longest: 120);

    [Fact]
    public void Whatever_the_records_hold_a_virtio_mmio_device_answers() => SavedAnywhere.CheckHostile(Mmio, runs: 1500);

    [Fact]
    public void A_device_that_served_its_queues_goes_on_at_its_indices_when_it_is_resumed()
    {
        List<string> output = [];
        Machine first = new([]), second = new(output);
        first.StartDriver();
        first.Device.Active!.Queues[0]!.Queue.Restore(7, 5); // as if it had served some
        SavedAnywhere.Restore(second.Part, SavedAnywhere.Save(first.Part));
        Assert.Null(second.Device.Active);
        second.Part.Resume();
        Assert.Contains(output, line => line.StartsWith("active 1", StringComparison.Ordinal));
        Assert.Equal(new VirtqueueStateV1 { NextAvailable = 7, NextUsed = 5 }, second.Device.Active!.Queues[0]!.Queue.Capture());
        Assert.Null(second.Device.Active.Queues[1]);
    }

    [Fact]
    public void Functions_that_are_not_those_that_were_saved_are_named()
    {
        Machine machine = new([]);
        PciStateV1 good = machine.Bridge.Capture();
        List<PciFunctionStateV1> functions = [.. good.Functions];
        int last = functions.Count - 1;
        Refused.With("holds 'second'", () => machine.Bridge.Restore(good with { Functions = [.. functions.Where(f => f.Bus == 0)] }));
        functions[last] = functions[last] with { Identity = 0x12345678 };
        Refused.With("0x12345678 was there", () => machine.Bridge.Restore(good with { Functions = functions }));
        functions[last] = good.Functions[last] with { Slot = 9 };
        Refused.With("nothing was there", () => machine.Bridge.Restore(good with { Functions = functions }));
        functions[last] = good.Functions[last];
        functions.Add(good.Functions[last] with { Slot = 9 });
        Refused.With("nothing is at 01:09.0 here", () => machine.Bridge.Restore(good with { Functions = functions }));
    }

    [Fact]
    public void A_BAR_that_the_guest_moved_answers_there_after_the_restore()
    {
        Machine first = new([]), second = new([]);
        ulong before = first.Function.MappedBar(0)!.Value.Value;
        Write(first, 1, 0x10, (uint)(before + 0x10000));
        SavedAnywhere.Restore(second.Part, SavedAnywhere.Save(first.Part));
        Assert.Equal(before + 0x10000, second.Function.MappedBar(0)!.Value.Value);
    }

    [Fact]
    public void A_bridge_that_was_saved_amid_a_reset_of_its_bus_does_not_reset_it_again()
    {
        const ulong bridge = 31 << 15, behind = 1 << 20;
        Machine first = new([]), second = new([]);
        first.Bridge.Ecam.Write(bridge + 0x3E, [0x40, 0]); // secondary bus reset
        first.Bridge.Ecam.Write(behind + 0x3C, [0x5A]);    // the interrupt line, which a reset clears
        SavedAnywhere.Restore(second.Part, SavedAnywhere.Save(first.Part));
        second.Bridge.Ecam.Write(bridge + 0x1B, [0x20]);   // another register of the bridge
        Assert.Equal(0x5A, Read(second, behind + 0x3C));
        second.Bridge.Ecam.Write(bridge + 0x3E, [0, 0]);
        Assert.Equal(0x5A, Read(second, behind + 0x3C));
        second.Bridge.Ecam.Write(bridge + 0x3E, [0x40, 0]); // and a new reset is one
        Assert.Equal(0, Read(second, behind + 0x3C));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public void A_transport_of_another_number_of_queues_is_refused(int queues)
    {
        Machine machine = new([]);
        VirtioTransportStateV1 state = machine.Function.Transport.Capture();
        IReadOnlyList<QueueSetupStateV1> two = state.Queues;
        Refused.With(
            $"it has {queues} queues, the device 2",
            () => machine.Function.Transport.Restore(state with { Queues = [.. two.Append(two[0]).Take(queues)] }));
    }

    private static byte Read(Machine machine, ulong at)
    {
        byte[] one = new byte[1];
        machine.Bridge.Ecam.Read(at, one);
        return one[0];
    }

    private static void Write(Machine machine, int slot, int offset, uint value) =>
        machine.Bridge.Ecam.Write((ulong)((slot << 15) + offset), BitConverter.GetBytes(value));

    private static Rig Pci()
    {
        List<string> output = [];
        Machine machine = new(output);
        ulong bar = machine.Function.MappedBar(0)!.Value.Value;
        return new Rig
        {
            Part = machine.Part,
            Windows =
            [
                (new BusPiece(machine.Bridge.Ecam, 1 << 15), 0x100), (new BusPiece(machine.Bridge.Ecam, 31 << 15), 0x60),
                (new BusPiece(machine.Bridge.Ecam, 1 << 20), 0x100),
                (machine.Bridge.ConfigPorts, 8),
                (new Mapped(machine.Bus, bar), 56), (new Mapped(machine.Bus, bar), 56), (new Mapped(machine.Bus, bar), 56),
                (new Mapped(machine.Bus, bar + 0x1000), 4), (new Mapped(machine.Bus, bar + 0x2000), 8),
                (new Mapped(machine.Bus, bar + 0x4000), 48),
                (new Mapped(machine.Bus, bar + 0x6000), 8),
            ],
            Widths = [1, 2, 4, 4, 8],
            LikelyBytes = [0, 1, 3, 4, 6, 7, 0x0B, 0x0F, 0x8F],
            Host =
            [
                _ => machine.Function.Transport.SignalQueue(0), _ => machine.Function.Transport.SignalQueue(1),
                _ => machine.Function.Transport.SignalConfigChanged(), _ => machine.StartDriver(), _ => machine.UseVectors(),
            ],
            Output = output,
        };
    }

    private static Rig Mmio()
    {
        List<string> output = [];
        VirtioMmio window = new(new FakeVirtio(output), SharedRam.Memory, new LoggedLine("irq", output));
        return new Rig
        {
            Part = new TransportPart(window, msix: null, pci: null),
            Windows = [(window, 0x108)],
            Widths = [4],
            LikelyBytes = [0, 1, 2, 3, 7, 0x0B, 0x0F],
            Host = [_ => window.SignalQueue(0), _ => window.SignalConfigChanged()],
            Output = output,
        };
    }

    /// <summary>A virtio device in slot 1, a bridge in the last slot, another virtio device behind it.</summary>
    private sealed class Machine
    {
        internal Machine(List<string> output)
        {
            Bridge = new PciHostBridge(Bus, (Start: Behind, Length: 0x10_0000u)) { Lines = [new WiredOr(new LoggedLine("intx", output))] };
            Device = new FakeVirtio(output);
            Function = new VirtioPciFunction("first", Device, SharedRam.Memory, new LoggedMessages(output), null);
            BarAllocator bars = new(Window, 0x1000_0000);
            Bridge.Add(Function, new PciAddress(0, 1), bars);
            VirtioPciFunction second = new("second", new FakeVirtio([]), SharedRam.Memory, new LoggedMessages([]), null);
            Bridge.Add(second, new PciAddress(1, 0), bars);
            Part = new TransportPart(Function.Transport, Function.Msix, Bridge);
        }

        internal AddressBus Bus { get; } = new("MMIO");

        internal PciHostBridge Bridge { get; }

        internal FakeVirtio Device { get; }

        internal VirtioPciFunction Function { get; }

        internal IMachinePart Part { get; }

        /// <summary>What a driver does until its device serves queue 0.</summary>
        internal void StartDriver()
        {
            Write(this, 1, 4, 6);
            Common(20, [0]);
            Common(20, [3]);
            Common(8, [1, 0, 0, 0]);
            Common(12, [1, 0, 0, 0]); // VERSION_1
            Common(20, [0x0B]);
            Common(22, [0, 0]);
            Common(24, [16, 0]);
            Common(32, BitConverter.GetBytes(0x1000UL));
            Common(40, BitConverter.GetBytes(0x2000UL));
            Common(48, BitConverter.GetBytes(0x3000UL));
            Common(28, [1, 0]);
            Common(20, [0x0F]);
        }

        /// <summary>MSI-X on, one vector open and one masked.</summary>
        internal void UseVectors()
        {
            ulong table = (Function.MappedBar(0)?.Value ?? 0) + 0x4000;
            Bus.Write(table, BitConverter.GetBytes(0xFEE0_1000UL));
            Bus.Write(table + 8, BitConverter.GetBytes(0x41UL));
            Bus.Write(table + 16, BitConverter.GetBytes(0xFEE0_2000UL));
            Bus.Write(table + 24, BitConverter.GetBytes(0x1_0000_0042UL));
            Common(22, [0, 0]);
            Common(26, [0, 0]);
            Common(22, [1, 0]);
            Common(26, [1, 0]);
            Common(16, [1, 0]);
            for (int at = Config(0x34) & 0xFF; at != 0; at = Config(at) >> 8)
            {
                if ((Config(at) & 0xFF) == 0x11)
                {
                    Bridge.Ecam.Write((1UL << 15) + (ulong)at + 2, [1, 0x80]);
                }
            }
        }

        private int Config(int offset)
        {
            byte[] two = new byte[2];
            Function.Config.Read(offset, two);
            return BitConverter.ToUInt16(two);
        }

        private void Common(ulong offset, byte[] data) => Bus.Write((Function.MappedBar(0)?.Value ?? 0) + offset, data);
    }

    private sealed class TransportPart(VirtioTransport transport, MsixTable? msix, PciHostBridge? pci) : IMachinePart
    {
        public PartId Id { get; } = new("device");

        public IReadOnlyList<PartId> DependsOn => [];

        public ValueTask QuiesceAsync(Quiesce mode, Deadline deadline) => ValueTask.CompletedTask;

        public void Resume() => transport.Resume();

        public void Save(StateWriter to)
        {
            to.Write(DeviceStates.VirtioTransport, transport.Capture());
            if (msix is not null && pci is not null)
            {
                to.Write(DeviceStates.Msix, msix.Capture());
                to.Write(DeviceStates.Pci, pci.Capture());
            }
        }

        public void Restore(StateReader from)
        {
            VirtioTransportStateV1 state = from.Read(DeviceStates.VirtioTransport);
            if (msix is not null && pci is not null)
            {
                pci.Restore(from.Read(DeviceStates.Pci));
                msix.Restore(from.Read(DeviceStates.Msix));
            }

            transport.Restore(state);
        }

        public string Describe() => "";
    }
}
