using System.Text.Json.Serialization;
using Vmm.Memory;

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

    /// <summary>What happens when the host fails its requests; null is the usual.</summary>
    public OnErrorSpec? OnError { get; init; }

    /// <summary>The vnode it is near: its I/O threads run beside it, and the guest is told; null is none.</summary>
    public int? Vnode { get; init; }

    /// <inheritdoc cref="SourceSpec.Path"/>
    public string Path
    {
        get => Source.Path;
        init => Source = Source with { Path = value };
    }

    /// <inheritdoc cref="SourceSpec.Nbd"/>
    public NbdSpec? Nbd
    {
        get => Source.Nbd;
        init => Source = Source with { Nbd = value, Kind = value is null ? Source.Kind : SourceKind.Nbd };
    }

    /// <inheritdoc cref="SourceSpec.Rbd"/>
    public RbdSpec? Rbd
    {
        get => Source.Rbd;
        init => Source = Source with { Rbd = value, Kind = value is null ? Source.Kind : SourceKind.Rbd };
    }

    /// <inheritdoc cref="SourceSpec.Image"/>
    public string? Image
    {
        get => Source.Image;
        init => Source = Source with { Image = value };
    }

    /// <inheritdoc cref="SourceSpec.Size"/>
    public ByteSize? Size
    {
        get => Source.Size;
        init => Source = Source with { Size = value };
    }

    /// <summary>It is a disk of a server or a cluster: its path is a name, and no file of this host has it.</summary>
    [JsonIgnore]
    public bool IsRemote => Source.Nbd is not null || Source.Rbd is not null;

    /// <inheritdoc cref="SourceSpec.Cache"/>
    public DiskCache Cache
    {
        get => Source.Cache;
        init => Source = Source with { Cache = value };
    }

    /// <inheritdoc cref="SourceSpec.Format"/>
    [JsonIgnore]
    public DiskFormat Format
    {
        get => Source.Format;
        init => Source = Source with { Format = value };
    }

    /// <summary>The format as JSON has it: left out for raw, which is all that an earlier release knows.</summary>
    [JsonPropertyName("format")]
    public DiskFormat? NamedFormat
    {
        get => Format == DiskFormat.Raw ? null : Format;
        init => Format = value ?? DiskFormat.Raw;
    }

    /// <summary>
    /// The images below a qcow2 image, the nearest first, as whoever opened them found them: said to a worker, and kept with a saved VM,
    /// which goes on with the same ones only. Null in a spec that a user writes.
    /// </summary>
    public IReadOnlyList<BackingSpec>? Backing { get; init; }

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

    /// <inheritdoc cref="FrontSpec.LogicalBlockSize"/>
    public int? LogicalBlockSize
    {
        get => Front.LogicalBlockSize;
        init => Front = Front with { LogicalBlockSize = value };
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
    /// <summary>A file or block device of the host.</summary>
    Raw,

    /// <summary>A disk of an NBD server.</summary>
    Nbd,

    /// <summary>An image of a Ceph cluster.</summary>
    Rbd,
}

/// <summary>How a disk's content lies in its file. It is said, never guessed from the content: that is the guest's to write.</summary>
public enum DiskFormat
{
    /// <summary>The file is the disk, byte for byte.</summary>
    Raw,

    /// <summary>A qcow2 image, version 2 or 3, with the images below it.</summary>
    Qcow2,
}

/// <summary>An image below another one.</summary>
/// <param name="Path">Its file.</param>
/// <param name="Format">How its content lies in it.</param>
public sealed record BackingSpec(string Path, DiskFormat Format);

/// <summary>What a disk's content is in: a node of the block graph.</summary>
public sealed record SourceSpec
{
    /// <summary>Kind of the node.</summary>
    public SourceKind Kind { get; init; }

    /// <summary>Image or block device; of a disk of a server its URI, which is a name only.</summary>
    public string Path { get; init; } = "";

    /// <summary>The server that has the disk; null for any other.</summary>
    public NbdSpec? Nbd { get; init; }

    /// <summary>The image of a Ceph cluster that is the disk; null for any other.</summary>
    public RbdSpec? Rbd { get; init; }

    /// <summary>The image of vmmd over which the disk is made when its VM is created; null when it is made, or no such disk.</summary>
    public string? Image { get; init; }

    /// <summary>Size of the disk that is made; null is the image's.</summary>
    public ByteSize? Size { get; init; }

    /// <summary>How the content lies in it.</summary>
    public DiskFormat Format { get; init; }

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

    /// <summary>Bytes of the blocks in which the guest addresses the disk, 512 or 4096; null is the storage's own.</summary>
    public int? LogicalBlockSize { get; init; }

    /// <summary>Transport; null is the VM's.</summary>
    public VirtioTransport? Transport { get; init; }
}

/// <summary>What happens when the host fails a request of a disk.</summary>
public enum FaultPolicy
{
    /// <summary>The guest gets an I/O error.</summary>
    Report,

    /// <summary>The VM is paused, and the request is issued again when it goes on.</summary>
    Pause,
}

/// <summary>What happens when the host fails requests of a disk.</summary>
public sealed record OnErrorSpec
{
    /// <summary>The host's file system is full, or a quota is used up.</summary>
    public FaultPolicy NoSpace { get; init; } = FaultPolicy.Pause;

    /// <summary>Any other error.</summary>
    public FaultPolicy Io { get; init; } = FaultPolicy.Report;
}
