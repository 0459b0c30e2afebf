using Vmm.Devices;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.Virtio;

namespace Vmm.State.Tests.Parts;

/// <summary>A root port with a device in its slot and one with none, saved at any point of what guest and host do.</summary>
public sealed class PortPartTests
{
    private const uint Window = 0xDFE0_0000, Megabyte = 1 << 20;

    [Fact]
    public void Saved_at_any_point_a_port_answers_the_same() => SavedAnywhere.Check(Ports, runs: 400, longest: 120);

    [Fact]
    public void Whatever_the_records_hold_a_port_answers() => SavedAnywhere.CheckHostile(Ports, runs: 1500);

    private static Rig Ports()
    {
        List<string> output = [];
        AddressBus bus = new("MMIO");
        PciHostBridge bridge = new(bus) { Lines = [new WiredOr(new LoggedLine("intx", output))] };
        bridge.AddRootPort(new PciAddress(0, 31, 0), Window, Megabyte);
        bridge.AddRootPort(new PciAddress(0, 31, 1), Window + Megabyte, Megabyte);
        PciPortHotplug? hotplug = null;
        hotplug = new PciPortHotplug(bridge, behind =>
        {
            output.Add($"ejected {behind}");
            hotplug!.Added(behind); // the next device of the same kind: a saved machine has the devices of its description
        });
        VirtioPciFunction function = new("first", new FakeVirtio(output), SharedRam.Memory, new LoggedMessages(output), null);
        bridge.Add(function, new PciAddress(1, 0), new BarAllocator(0xC000_0000, 0x1000_0000));
        hotplug.Allow(1);
        return new Rig
        {
            Part = new PortsPart(bridge, hotplug),
            Windows =
            [
                (new BusPiece(bridge.Ecam, 31 << 15), 0x80), (new BusPiece(bridge.Ecam, 31 << 15), 0x80),
                (new BusPiece(bridge.Ecam, (31 << 15) + 0x58), 4), // slot control and status
                (new BusPiece(bridge.Ecam, (31 << 15) + (1 << 12)), 0x80), (new BusPiece(bridge.Ecam, 1 << 20), 0x40),
            ],
            Widths = [1, 2, 2, 4, 4],
            LikelyBytes = [0, 1, 2, 3, 4, 6, 7, 0x20, 0x29],
            Host = [_ => output.Add($"asked {hotplug.AskRemoval(1)}"), _ => output.Add($"asked {hotplug.AskRemoval(2)}")],
            Output = output,
        };
    }

    private sealed class PortsPart(PciHostBridge bridge, PciPortHotplug hotplug) : IMachinePart
    {
        public PartId Id { get; } = new("ports");

        public IReadOnlyList<PartId> DependsOn => [];

        public ValueTask QuiesceAsync(Quiesce mode, Deadline deadline) => ValueTask.CompletedTask;

        public void Resume()
        {
            // Ports wait for nothing.
        }

        public void Save(StateWriter to)
        {
            to.Write(DeviceStates.Pci, bridge.Capture());
            to.Write(DeviceStates.PciPorts, hotplug.Capture());
        }

        public void Restore(StateReader from)
        {
            bridge.Restore(from.Read(DeviceStates.Pci));
            hotplug.Restore(from.Read(DeviceStates.PciPorts));
        }

        public string Describe() => "";
    }
}
