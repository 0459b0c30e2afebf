namespace Vmm.Devices.Pci;

/// <summary>
/// Saved state of <see cref="PciPortHotplug"/>, version 1; its shape never changes. Registers of the ports are in <see cref="PciStateV1"/>.
/// </summary>
public sealed record PciPortsStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "pci-ports";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>The buses behind the ports whose device the guest is asked to let go of.</summary>
    public required IReadOnlyList<byte> Leaving { get; init; }

    /// <summary>Those of them whose button is still to be pressed, once their indicator blinks no more.</summary>
    public required IReadOnlyList<byte> ToPress { get; init; }
}
