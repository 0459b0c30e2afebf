namespace Vmm.Devices.Virtio.Blk;

/// <summary>Saved state of <see cref="VirtioBlk"/>, version 1; its shape never changes. The disk's content is where it is.</summary>
public sealed record BlkStateV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "virtio-blk";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>The disk's size in sectors of 512 bytes.</summary>
    public required ulong Sectors { get; init; }

    /// <summary>The driver chose write-back (virtio 1.2 section 5.2.5).</summary>
    public required bool Writeback { get; init; }
}
