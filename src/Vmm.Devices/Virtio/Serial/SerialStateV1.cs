namespace Vmm.Devices.Virtio.Serial;

/// <summary>Saved state of <see cref="VirtioSerial"/>, version 1; its shape never changes.</summary>
public sealed record SerialStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "virtio-serial";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>A program of the guest has the port open.</summary>
    public required bool GuestOpen { get; init; }

    /// <summary>The driver is owed PORT_ADD.</summary>
    public required bool OwesAdd { get; init; }

    /// <summary>The driver is owed PORT_NAME.</summary>
    public required bool OwesName { get; init; }

    /// <summary>The driver is owed PORT_OPEN.</summary>
    public required bool OwesOpen { get; init; }

    /// <summary>Last words of a stream that are still to reach the guest.</summary>
    public required byte[] Farewell { get; init; }
}
