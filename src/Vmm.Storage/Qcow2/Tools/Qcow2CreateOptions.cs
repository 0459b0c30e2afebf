namespace Vmm.Storage.Qcow2.Tools;

/// <summary>What a new image is like.</summary>
public sealed record Qcow2CreateOptions
{
    /// <summary>Bytes of the disk, a multiple of 512.</summary>
    public required ulong DiskSize { get; init; }

    /// <summary>log2 of a cluster in bytes.</summary>
    public int ClusterBits { get; init; } = 16;

    /// <summary>log2 of the bits of a refcount.</summary>
    public int RefcountOrder { get; init; } = 4;

    /// <summary>L2 entries of 16 bytes that tell 32 parts of a cluster apart.</summary>
    public bool ExtendedL2 { get; init; }

    /// <summary>Writers may keep refcounts in memory while the image is marked dirty.</summary>
    public bool LazyRefcounts { get; init; }

    /// <summary>How compressed clusters are compressed.</summary>
    public Qcow2Compression Compression { get; init; }

    /// <summary>Name of the backing file as the image shall give it; null without one.</summary>
    public string? BackingFile { get; init; }

    /// <summary>Its format, <c>raw</c> or <c>qcow2</c>; goes with every backing file.</summary>
    public string? BackingFormat { get; init; }

    /// <summary>
    /// A differencing disk. Its clusters are told apart in parts of 4 KiB: a first write of a page copies nothing from below.
    /// </summary>
    /// <param name="backing">The backing file as the image shall give it.</param>
    /// <param name="format">What that is.</param>
    /// <param name="size">Bytes of the disk.</param>
    public static Qcow2CreateOptions Over(string backing, ImageFormat format, ulong size) => new()
    {
        DiskSize = size,
        ClusterBits = 17,
        ExtendedL2 = true,
        BackingFile = backing,
        BackingFormat = format == ImageFormat.Qcow2 ? "qcow2" : "raw",
    };

    /// <summary>The header of such an image, without tables.</summary>
    /// <exception cref="BlockException">There is no such image; the message says why.</exception>
    internal Qcow2Header ToHeader(string path)
    {
        Check(path);
        return new Qcow2Header
        {
            Geometry = new Qcow2Geometry(ClusterBits, RefcountOrder, ExtendedL2),
            DiskSize = DiskSize,
            BackingFile = BackingFile,
            BackingFormat = BackingFormat,
            Incompatible = (ExtendedL2 ? Qcow2Incompatible.ExtendedL2 : 0)
                | (Compression == Qcow2Compression.Deflate ? 0 : Qcow2Incompatible.CompressionType),
            Compatible = LazyRefcounts ? Qcow2Compatible.LazyRefcounts : 0,
            Compression = Compression,
        };
    }

    private void Check(string path)
    {
        string? problem = DiskSize == 0 || DiskSize % 512 != 0 || DiskSize > 1ul << 62
                ? $"a disk of {DiskSize} bytes: whole sectors of 512 bytes, and not none, are needed"
            : ClusterBits is < Qcow2Geometry.MinClusterBits or > Qcow2Geometry.MaxClusterBits
                ? "the cluster size is a power of two from 512 bytes to 2 MiB"
            : ExtendedL2 && ClusterBits < 14 ? "extended L2 entries need clusters of 16 KiB or more"
            : RefcountOrder is < 0 or > 6 ? "a refcount has 1, 2, 4, 8, 16, 32 or 64 bits"
            : (BackingFile is null) != (BackingFormat is null) ? "a backing file goes with its format (raw or qcow2): it is never guessed"
            : BackingFormat is not (null or "raw" or "qcow2") ? $"backing format {BackingFormat}: raw and qcow2 are known"
            : null;
        if (problem is not null)
        {
            throw new BlockException(BlockErrorKind.BadSize, $"disk {path} cannot be made: {problem}") { Path = path };
        }
    }
}
