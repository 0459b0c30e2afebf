namespace Vmm.Devices.Pci;

/// <summary>
/// Saved state of a <see cref="PciHostBridge"/> and of the configuration of all functions, version 1; its shape never changes.
/// </summary>
public sealed record PciStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "pci";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>What was written to port 0xCF8.</summary>
    public required uint AddressPort { get; init; }

    /// <summary>The functions.</summary>
    public required IReadOnlyList<PciFunctionStateV1> Functions { get; init; }
}

/// <summary>A function in a <see cref="PciStateV1"/>.</summary>
public sealed record PciFunctionStateV1
{
    /// <summary>The bus, by the number that it has from the start.</summary>
    public required byte Bus { get; init; }

    /// <summary>Its slot there.</summary>
    public required byte Slot { get; init; }

    /// <summary>Its number in the slot.</summary>
    public required byte Function { get; init; }

    /// <summary>Vendor in the low half, device in the high one.</summary>
    public required uint Identity { get; init; }

    /// <summary>What software has written to its configuration space, from the start of it.</summary>
    public required byte[] Written { get; init; }
}
