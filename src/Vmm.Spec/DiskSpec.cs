using System.Text.Json.Serialization;

namespace Vmm.Spec;

/// <summary>
/// One disk: what its content is in (<see cref="Source"/>) and how the guest sees it (<see cref="Front"/>). The short form of a spec file,
/// and the JSON between daemon and worker, have the members of both side by side.
/// </summary>
public sealed record DiskSpec
{
    /// <summary>What the disk's content is in.</summary>
    [JsonIgnore]
    public SourceSpec Source { get; init; } = new();

    /// <summary>How the guest sees the disk.</summary>
    [JsonIgnore]
    public FrontSpec Front { get; init; } = new();

    /// <summary>Refuse writes.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>Rate limits of reads and writes together; null is none.</summary>
    public LimitsSpec? Limits { get; init; }

    /// <summary>The vnode it is near: its I/O threads run beside it, and the guest is told; null is none.</summary>
    public int? Vnode { get; init; }

    /// <inheritdoc cref="SourceSpec.Path"/>
    public string Path
    {
        get => Source.Path;
        init => Source = Source with { Path = value };
    }

    /// <inheritdoc cref="SourceSpec.Cache"/>
    public DiskCache Cache
    {
        get => Source.Cache;
        init => Source = Source with { Cache = value };
    }

    /// <inheritdoc cref="FrontSpec.Serial"/>
    public string? Serial
    {
        get => Front.Serial;
        init => Front = Front with { Serial = value };
    }

    /// <inheritdoc cref="FrontSpec.Queues"/>
    public int Queues
    {
        get => Front.Queues;
        init => Front = Front with { Queues = value };
    }

    /// <inheritdoc cref="FrontSpec.QueueSize"/>
    public int QueueSize
    {
        get => Front.QueueSize;
        init => Front = Front with { QueueSize = value };
    }

    /// <inheritdoc cref="FrontSpec.Transport"/>
    public VirtioTransport? Transport
    {
        get => Front.Transport;
        init => Front = Front with { Transport = value };
    }
}

/// <summary>Kinds of what a disk's content can be in.</summary>
public enum SourceKind
{
    /// <summary>A file or block device, as it is.</summary>
    Raw,
}

/// <summary>What a disk's content is in: a node of the block graph.</summary>
public sealed record SourceSpec
{
    /// <summary>Kind of the node.</summary>
    public SourceKind Kind { get; init; }

    /// <summary>Raw image or block device.</summary>
    public string Path { get; init; } = "";

    /// <summary>Page cache use.</summary>
    public DiskCache Cache { get; init; } = DiskCache.Direct;
}

/// <summary>Kinds of what a guest can see a disk as.</summary>
public enum FrontKind
{
    /// <summary>A virtio block device (virtio 1.2 section 5.2).</summary>
    VirtioBlk,
}

/// <summary>How a guest sees a disk.</summary>
public sealed record FrontSpec
{
    /// <summary>Kind of the device.</summary>
    public FrontKind Kind { get; init; }

    /// <summary>Serial number the guest reads, at most 20 ASCII characters; null for none.</summary>
    public string? Serial { get; init; }

    /// <summary>Request virtqueues.</summary>
    public int Queues { get; init; } = 1;

    /// <summary>Descriptors per queue, a power of two.</summary>
    public int QueueSize { get; init; } = 256;

    /// <summary>Transport; null is the VM's.</summary>
    public VirtioTransport? Transport { get; init; }
}
