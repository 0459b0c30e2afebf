using System.Globalization;
using Vmm.Devices;
using Vmm.Devices.Acpi;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Machine.Build;
using Vmm.State;

namespace Vmm.Machine.Hotplug;

/// <summary>Hotplug by ACPI: a block of registers for each bus, and one interrupt of them all.</summary>
internal sealed class AcpiHotplug : IPciHotplug
{
    private const uint Gsi = PlatformDevices.HotplugGsi;
    private readonly PciHostBridge _bridge;
    private readonly PciHotplugPorts[] _ports; // by bus
    private readonly uint[] _allowed;

    /// <param name="board">Where registers and interrupt go.</param>
    /// <param name="bridge">The buses.</param>
    /// <param name="eject">The guest ejected a device. On the vCPU thread, without a lock.</param>
    internal AcpiHotplug(Board board, PciHostBridge bridge, Action<PciAddress> eject)
    {
        _bridge = bridge;
        _ports = new PciHotplugPorts[bridge.Buses];
        _allowed = new uint[bridge.Buses];
        WiredOr line = new(board.Interrupts.CreateLevelLine(Gsi));
        for (int i = 0; i < _ports.Length; i++)
        {
            int bus = i;
            _ports[bus] = new PciHotplugPorts(line.AddInput(), slot => eject(new PciAddress(bus, slot)));
            board.Ports.Map(PciHotplugPorts.Port(bus), PciHotplugPorts.Length, _ports[bus], "PCI hotplug");
        }
    }

    public void Allow(PciAddress at)
    {
        _ports[at.Bus].Allow(at.Slot);
        _allowed[at.Bus] |= 1u << at.Slot;
    }

    public void Added(PciAddress at) => _ports[at.Bus].Added(at.Slot);

    public bool AskRemoval(PciAddress at) => _ports[at.Bus].AskRemoval(at.Slot);

    public bool Take(PciAddress at) => _ports[at.Bus].Take(at.Slot);

    public void Changed(PciAddress at) => _ports[at.Bus].Changed(at.Slot);

    /// <summary>Slots that can be ejected, or get something: all but those of bridges and devices that stay.</summary>
    public AcpiConfig Describe(AcpiConfig tables)
    {
        uint[] slots = new uint[_ports.Length];
        for (int bus = 0; bus < slots.Length; bus++)
        {
            slots[bus] = ~_bridge.Taken(bus) | _allowed[bus];
        }

        return tables with { HotplugGsi = Gsi, HotplugSlots = slots };
    }

    public void Register(UnitRegistry units, PartId pci, bool atRest)
    {
        for (int bus = 0; bus < _ports.Length; bus++)
        {
            PciHotplugPorts ports = _ports[bus];
            PartId id = new(string.Create(CultureInfo.InvariantCulture, $"hotplug/{bus}"));
            units.Register(new RegisterPart<PciHotplugStateV1>(id, DeviceStates.PciHotplug, ports.Capture, ports.Restore, pci), atRest);
        }
    }
}
