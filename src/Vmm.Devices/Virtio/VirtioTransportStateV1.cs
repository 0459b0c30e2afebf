namespace Vmm.Devices.Virtio;

/// <summary>
/// Saved state of a virtio transport, version 1; its shape never changes. Message vectors are in a record of their own, what the device
/// itself knows too.
/// </summary>
public sealed record VirtioTransportStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "virtio-transport";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>The device status (virtio 1.2 section 2.1).</summary>
    public required byte Status { get; init; }

    /// <summary>The device serves its queues: false too when it stopped because of an error.</summary>
    public required bool Active { get; init; }

    /// <summary>Features that the driver accepted.</summary>
    public required ulong DriverFeatures { get; init; }

    /// <summary>Which 32 feature bits DeviceFeatures shows.</summary>
    public required uint DeviceFeatureSelect { get; init; }

    /// <summary>Which 32 feature bits DriverFeatures takes.</summary>
    public required uint DriverFeatureSelect { get; init; }

    /// <summary>Which queue the queue registers speak of.</summary>
    public required uint QueueSelect { get; init; }

    /// <summary>The interrupt status: 1 a queue, 2 the configuration.</summary>
    public required byte InterruptStatus { get; init; }

    /// <summary>Message vector of the configuration; 0xFFFF is none.</summary>
    public required ushort ConfigVector { get; init; }

    /// <summary>Changes of the configuration so far.</summary>
    public required uint ConfigGeneration { get; init; }

    /// <summary>The queues, by number.</summary>
    public required IReadOnlyList<QueueSetupStateV1> Queues { get; init; }
}

/// <summary>A queue in a <see cref="VirtioTransportStateV1"/>.</summary>
public sealed record QueueSetupStateV1
{
    /// <summary>Size that the driver chose.</summary>
    public required ushort Size { get; init; }

    /// <summary>The driver enabled it.</summary>
    public required bool Enabled { get; init; }

    /// <summary>GPA of the descriptor table.</summary>
    public required ulong Descriptors { get; init; }

    /// <summary>GPA of the available ring.</summary>
    public required ulong Driver { get; init; }

    /// <summary>GPA of the used ring.</summary>
    public required ulong Device { get; init; }

    /// <summary>Message vector; 0xFFFF is none.</summary>
    public required ushort Vector { get; init; }

    /// <summary>How far it was served; null: it is not in use.</summary>
    public VirtqueueStateV1? Indices { get; init; }
}

/// <summary>How far a ring was served. What was taken was completed or given back before.</summary>
public sealed record VirtqueueStateV1
{
    /// <summary>Index of the next available entry.</summary>
    public required ushort NextAvailable { get; init; }

    /// <summary>Index of the next used entry.</summary>
    public required ushort NextUsed { get; init; }
}
