namespace Vmm.Devices.Legacy;

/// <summary>Saved state of <see cref="ResetControl"/>, version 1; its shape never changes.</summary>
public sealed record ResetControlStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "reset-control";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>The bits of the register that choose between kinds of reset.</summary>
    public required byte ResetKind { get; init; }
}
