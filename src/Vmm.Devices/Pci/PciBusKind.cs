namespace Vmm.Devices.Pci;

/// <summary>What a function finds on its bus, and what it says of itself there.</summary>
public enum PciBusKind
{
    /// <summary>The host bridge's: functions are integrated into the root complex.</summary>
    Root,

    /// <summary>Conventional PCI: no function is one of PCI Express.</summary>
    Conventional,

    /// <summary>The link of a PCI Express port: one device, an endpoint.</summary>
    Express,
}
