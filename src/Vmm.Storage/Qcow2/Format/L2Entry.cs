namespace Vmm.Storage.Qcow2;

/// <summary>What an L2 entry says of its cluster.</summary>
public enum ClusterKind : byte
{
    /// <summary>Nothing: the backing file is seen, or zeros without one.</summary>
    Unallocated,

    /// <summary>Reads as zeros; has a host cluster when <see cref="L2Entry.HostOffset"/> is not 0.</summary>
    Zero,

    /// <summary>Has a host cluster. With extended entries the bitmap says which parts of it count.</summary>
    Data,

    /// <summary>Compressed data anywhere in the file.</summary>
    Compressed,

    /// <summary>Not a valid entry.</summary>
    Invalid,
}

/// <summary>One entry of an L2 table, as in the file but in the host's byte order (qcow2.rst, "Cluster mapping").</summary>
/// <param name="Bits">The first eight bytes.</param>
/// <param name="Bitmap">The second eight bytes of an extended entry, else 0: bits 0 to 31 allocated, 32 to 63 reads as zeros.</param>
public readonly record struct L2Entry(ulong Bits, ulong Bitmap = 0)
{
    private const ulong CopiedBit = 1ul << 63, CompressedBit = 1ul << 62, ZeroBit = 1, OffsetMask = 0x00ff_ffff_ffff_fe00;

    /// <summary>Bits of an L1 or standard L2 entry that the format reserves.</summary>
    private const ulong ReservedBits = ~(CopiedBit | CompressedBit | ZeroBit | OffsetMask);

    /// <summary>Those of standard entries that are reserved with every kind of image.</summary>
    internal const ulong AlwaysReserved = 0x3f00_0000_0000_01fe;

    /// <summary>A cluster that reads as zeros and has no host cluster.</summary>
    public static L2Entry PlainZero(Qcow2Geometry image) => image.ExtendedL2 ? new(0, 0xffff_ffff_0000_0000) : new(ZeroBit);

    /// <summary>A cluster of its own, refcount 1, all parts of it payload.</summary>
    public static L2Entry Data(Qcow2Geometry image, ulong hostOffset) => new(CopiedBit | hostOffset, image.ExtendedL2 ? 0xffff_ffff : 0);

    /// <summary>A cluster of its own with some parts payload and some zeros (extended entries only).</summary>
    public static L2Entry Parts(ulong hostOffset, uint allocated, uint zeros) =>
        new(CopiedBit | hostOffset, ((ulong)zeros << 32) | allocated);

    /// <summary>A compressed cluster.</summary>
    /// <param name="image">The image.</param>
    /// <param name="hostOffset">Where its bytes begin.</param>
    /// <param name="length">Their number.</param>
    public static L2Entry Compressed(Qcow2Geometry image, ulong hostOffset, uint length)
    {
        int shift = CompressedOffsetBits(image);
        ulong sectors = ((hostOffset + length - 1) >> 9) - (hostOffset >> 9);
        return new(CompressedBit | (sectors << shift) | hostOffset);
    }

    /// <summary>Refcount is exactly 1: it may be written in place.</summary>
    public bool IsCopied => (Bits & CopiedBit) != 0;

    /// <summary>It is that of a compressed cluster.</summary>
    public bool IsCompressed => (Bits & CompressedBit) != 0;

    /// <summary>The same with another flag of refcount 1.</summary>
    internal L2Entry WithCopied(bool copied) => this with { Bits = copied ? Bits | CopiedBit : Bits & ~CopiedBit };

    /// <summary>The host cluster of a cluster that is not compressed; 0 is none.</summary>
    public ulong HostOffset => Bits & OffsetMask;

    /// <summary>Parts (bit 0 is the first) that lie in the host cluster. For standard entries of kind Data: all.</summary>
    public uint Allocated => (uint)Bitmap;

    /// <summary>Parts that read as zeros.</summary>
    public uint Zeros => (uint)(Bitmap >> 32);

    /// <summary>What it says. <see cref="ClusterKind.Invalid"/> when the format forbids it.</summary>
    public ClusterKind KindIn(Qcow2Geometry image)
    {
        if ((Bits & CompressedBit) != 0)
        {
            return IsCopied || Bitmap != 0 ? ClusterKind.Invalid : ClusterKind.Compressed;
        }

        if (!image.IsAligned(HostOffset) || (Bits & ReservedBits) != 0)
        {
            return ClusterKind.Invalid;
        }

        return image.ExtendedL2 ? ExtendedKind() : StandardKind();
    }

    /// <summary>Where the bytes of a compressed cluster begin, and how many there are at most: whole sectors are counted.</summary>
    public (ulong Offset, uint Length) CompressedRange(Qcow2Geometry image)
    {
        int shift = CompressedOffsetBits(image);
        ulong offset = Bits & ((1ul << shift) - 1);
        ulong sectors = ((Bits & ~(CopiedBit | CompressedBit)) >> shift) + 1;
        return (offset, (uint)((sectors * 512) - (offset & 511)));
    }

    private static int CompressedOffsetBits(Qcow2Geometry image) => 62 - (image.ClusterBits - 8);

    private ClusterKind StandardKind() => (Bits & ZeroBit) != 0 ? ClusterKind.Zero
        : HostOffset != 0 ? ClusterKind.Data
        : IsCopied ? ClusterKind.Invalid
        : ClusterKind.Unallocated;

    // Bit 0 is reserved here; a part cannot be both, and only parts of a host cluster are allocated.
    private ClusterKind ExtendedKind()
    {
        if ((Bits & ZeroBit) != 0 || (Allocated & Zeros) != 0 || (HostOffset == 0 && (Allocated != 0 || IsCopied)))
        {
            return ClusterKind.Invalid;
        }

        return HostOffset != 0 ? ClusterKind.Data : Zeros != 0 ? ClusterKind.Zero : ClusterKind.Unallocated;
    }
}
