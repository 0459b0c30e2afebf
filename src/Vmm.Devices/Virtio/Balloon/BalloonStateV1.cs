namespace Vmm.Devices.Virtio.Balloon;

/// <summary>
/// Saved state of <see cref="VirtioBalloon"/> while it serves a driver, version 1; its shape never changes. Sizes are in pages of 4 KiB.
/// </summary>
public sealed record BalloonStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "virtio-balloon";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>Size that was asked for.</summary>
    public required uint TargetPages { get; init; }

    /// <summary>Size that the driver told.</summary>
    public required uint ActualPages { get; init; }

    /// <summary>What the guest fills free pages with.</summary>
    public required uint Poison { get; init; }

    /// <summary>Head of the driver's statistics buffer that the device keeps for its next question; null: it has none.</summary>
    public ushort? StatisticsHead { get; init; }
}
