namespace Vmm.Devices.Pci;

/// <summary>Saved state of <see cref="PciHotplugPorts"/>, version 1; its shape never changes. Bit n is slot n.</summary>
public sealed record PciHotplugStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "pci-hotplug";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>Slots into which something came.</summary>
    public required uint Added { get; init; }

    /// <summary>Slots that the guest is asked to let go.</summary>
    public required uint Removal { get; init; }

    /// <summary>Slots that can be ejected.</summary>
    public required uint Ejectable { get; init; }

    /// <summary>Changes of what is plugged.</summary>
    public required uint Generation { get; init; }
}
