namespace Vmm.Storage.Qcow2.Tools;

/// <summary>What a check can find.</summary>
public enum CheckFindingKind
{
    /// <summary>A cluster is counted and not used, or counted higher than it is used: space is lost, nothing else.</summary>
    Leak,

    /// <summary>A cluster is used more often than it is counted: the next writer would hand it out again.</summary>
    RefcountTooSmall,

    /// <summary>An entry says that its cluster has refcount 1 and it has not, or the other way round.</summary>
    CopiedFlag,

    /// <summary>The refcount table or a block is not sound: refcounts cannot be believed.</summary>
    RefcountStructure,

    /// <summary>Something lies behind the end of the file.</summary>
    OutsideFile,

    /// <summary>Something does not begin at a cluster.</summary>
    Unaligned,

    /// <summary>Bits are set that the format reserves.</summary>
    ReservedBits,

    /// <summary>The bitmap of an extended L2 entry contradicts itself or its entry.</summary>
    SubclusterBitmap,

    /// <summary>A table lies over something else: the next write to one destroys the other. (qemu-img counts both as users.)</summary>
    Overlap,

    /// <summary>An entry that the format does not allow; its cluster cannot be read. (qemu-img passes over some of these.)</summary>
    ImpossibleEntry,

    /// <summary>A cluster is used more often than a refcount of this image can say.</summary>
    RefcountOverflow,

    /// <summary>The table of internal snapshots or the directory of bitmaps cannot be read.</summary>
    Directory,
}

/// <summary>One thing that a check found.</summary>
/// <param name="Kind">What it is.</param>
/// <param name="Offset">The place in the file, in bytes.</param>
/// <param name="Text">One sentence for people.</param>
public sealed record CheckFinding(CheckFindingKind Kind, ulong Offset, string Text);
