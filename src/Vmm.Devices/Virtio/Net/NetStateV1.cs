namespace Vmm.Devices.Virtio.Net;

/// <summary>Saved state of <see cref="VirtioNet"/>, version 1; its shape never changes.</summary>
public sealed record NetStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "virtio-net";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>Pairs of queues that the driver uses; the first ones.</summary>
    public required int ActivePairs { get; init; }
}
