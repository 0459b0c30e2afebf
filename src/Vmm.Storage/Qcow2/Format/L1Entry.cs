namespace Vmm.Storage.Qcow2;

/// <summary>One entry of the L1 table, in the host's byte order (qcow2.rst, "L1 table entry").</summary>
/// <param name="Bits">The eight bytes.</param>
public readonly record struct L1Entry(ulong Bits)
{
    private const ulong CopiedBit = 1ul << 63, OffsetMask = 0x00ff_ffff_ffff_fe00;

    /// <summary>Bits that the format reserves.</summary>
    internal const ulong ReservedMask = ~(CopiedBit | OffsetMask);

    /// <summary>An L2 table of refcount 1.</summary>
    public static L1Entry Of(ulong l2Offset) => new(CopiedBit | l2Offset);

    /// <summary>Where the L2 table lies; 0 is none: everything it would map is unallocated.</summary>
    public ulong L2Offset => Bits & OffsetMask;

    /// <summary>The table's refcount is exactly 1.</summary>
    public bool IsCopied => (Bits & CopiedBit) != 0;

    /// <summary>True when the format allows it.</summary>
    public bool IsValidIn(Qcow2Geometry image) => (Bits & ~(CopiedBit | OffsetMask)) == 0 && image.IsAligned(L2Offset);
}
