namespace Vmm.Machine.Saved;

/// <summary>What the guest was asked to have, version 1; its shape never changes.</summary>
public sealed record VnodeSizesStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "vnode-sizes";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>Vnodes with memory that comes and goes.</summary>
    public required IReadOnlyList<VnodeWishV1> Vnodes { get; init; }

    /// <summary>How far a size of the only vnode goes below what it started with.</summary>
    public required ulong BelowBytes { get; init; }

    /// <summary>The balloon's target that stands again when no size needs it.</summary>
    public required ulong BalloonBytes { get; init; }

    /// <summary>A size went below, and the guest has not taken back all of it yet.</summary>
    public required bool Returning { get; init; }
}

/// <summary>A vnode in a <see cref="VnodeSizesStateV1"/>.</summary>
public sealed record VnodeWishV1
{
    /// <summary>The vnode.</summary>
    public required int Vnode { get; init; }

    /// <summary>What it shall have of the memory that comes and goes in the end; its device may ask for more until then.</summary>
    public required ulong WantedBytes { get; init; }

    /// <summary>It is asked for all of it at once, whatever the guest has left.</summary>
    public required bool Forced { get; init; }
}
