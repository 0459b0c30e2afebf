using Vmm.Devices.Acpi;
using Vmm.Devices.Pci;
using Vmm.State;

namespace Vmm.Machine.Hotplug;

/// <summary>How host and guest of one machine talk about PCI devices that come and go. Any thread.</summary>
internal interface IPciHotplug
{
    /// <summary>A device that can go is there from the start. Before the guest runs.</summary>
    void Allow(PciAddress at);

    /// <summary>A device was plugged in: the guest is told.</summary>
    void Added(PciAddress at);

    /// <summary>Asks the guest to let go of a device, again if it was asked before; false when it has let go of it.</summary>
    bool AskRemoval(PciAddress at);

    /// <summary>
    /// The host takes a device whether the guest likes it or not. False when the guest let go of it before: then that is on its way.
    /// </summary>
    bool Take(PciAddress at);

    /// <summary>A device that <see cref="Take"/> took is off the bus.</summary>
    void Changed(PciAddress at);

    /// <summary>What the guest's tables say of it. Before the guest runs.</summary>
    AcpiConfig Describe(AcpiConfig tables);

    /// <summary>Its units of a saved VM, restored after the PCI functions.</summary>
    void Register(UnitRegistry units, PartId pci, bool atRest);
}
