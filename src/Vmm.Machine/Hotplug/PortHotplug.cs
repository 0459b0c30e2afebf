using Vmm.Devices;
using Vmm.Devices.Acpi;
using Vmm.Devices.Pci;
using Vmm.State;

namespace Vmm.Machine.Hotplug;

/// <summary>Hotplug by PCI Express: each device that comes and goes has a root port of its own.</summary>
internal sealed class PortHotplug : IPciHotplug
{
    private static readonly PartId s_ports = new("hotplug/ports");
    private readonly PciPortHotplug _ports;

    /// <param name="bridge">The buses.</param>
    /// <param name="eject">The guest let go of a device. On a vCPU thread, or on that of <see cref="AskRemoval"/>.</param>
    internal PortHotplug(PciHostBridge bridge, Action<PciAddress> eject) =>
        _ports = new PciPortHotplug(bridge, bus => eject(new PciAddress(bus, 0)));

    public void Allow(PciAddress at) => _ports.Allow(at.Bus);

    public void Added(PciAddress at) => _ports.Added(at.Bus);

    public bool AskRemoval(PciAddress at) => _ports.AskRemoval(at.Bus);

    public bool Take(PciAddress at) => _ports.Take(at.Bus);

    public void Changed(PciAddress at)
    {
        // The port told of it when the device was taken.
    }

    /// <summary>Nothing: the guest gets control of the ports by _OSC, and finds out what they can do by itself.</summary>
    public AcpiConfig Describe(AcpiConfig tables) => tables;

    public void Register(UnitRegistry units, PartId pci, bool atRest) => units.Register(
        new RegisterPart<PciPortsStateV1>(s_ports, DeviceStates.PciPorts, _ports.Capture, _ports.Restore, pci), atRest);
}
