namespace Vmm.Storage.Qcow2.Tools;

/// <summary>Where a part of a disk comes from.</summary>
public enum DiskExtentKind
{
    /// <summary>From nowhere: a backing file would be seen, or zeros.</summary>
    Unallocated,

    /// <summary>Zeros.</summary>
    Zero,

    /// <summary>From a place of a file.</summary>
    Data,

    /// <summary>From compressed bytes.</summary>
    Compressed,
}

/// <summary>A part of a disk that comes from one place, in bytes.</summary>
/// <param name="Start">Its first byte on the disk.</param>
/// <param name="Length">Its bytes; never 0.</param>
/// <param name="Kind">Where it comes from.</param>
/// <param name="Depth">The image of the chain, 0 is the top; that of the last one for what is in none.</param>
/// <param name="HostOffset">Its place in the file, for data; that of the compressed bytes.</param>
public readonly record struct DiskExtent(ulong Start, ulong Length, DiskExtentKind Kind, int Depth, ulong HostOffset)
{
    /// <summary>True when <paramref name="next"/> goes on where this ends, in the same place.</summary>
    internal bool Continues(DiskExtent next) => next.Start == Start + Length && next.Kind == Kind && next.Depth == Depth
        && Kind != DiskExtentKind.Compressed && (Kind != DiskExtentKind.Data || next.HostOffset == HostOffset + Length);
}
