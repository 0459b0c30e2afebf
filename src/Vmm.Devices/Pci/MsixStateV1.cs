namespace Vmm.Devices.Pci;

/// <summary>
/// Saved state of a <see cref="MsixTable"/>, version 1; its shape never changes. Message control is in the configuration space.
/// </summary>
public sealed record MsixStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "msix";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>The vectors, by number.</summary>
    public required IReadOnlyList<MsixVectorStateV1> Vectors { get; init; }
}

/// <summary>A vector in a <see cref="MsixStateV1"/>.</summary>
public sealed record MsixVectorStateV1
{
    /// <summary>Where its message goes.</summary>
    public required ulong Address { get; init; }

    /// <summary>What the message says.</summary>
    public required uint Data { get; init; }

    /// <summary>Its mask bit.</summary>
    public required bool Masked { get; init; }

    /// <summary>Its pending bit.</summary>
    public required bool Pending { get; init; }

    /// <summary>Software has set it up: it was unmasked once with this message.</summary>
    public required bool Routed { get; init; }
}
