namespace Vmm.Storage.Changes;

/// <summary>A range of a disk that may have been written.</summary>
/// <param name="Offset">Its first byte, the beginning of an extent.</param>
/// <param name="Length">Bytes: whole extents, but for the last one of the disk.</param>
public readonly record struct ChangeRange(ulong Offset, ulong Length);

/// <summary>
/// What was written to a disk before its last cut and is not acknowledged: ranges of extents of 64 KiB, or everything with the reason.
/// </summary>
public sealed class ChangeSet
{
    internal ChangeSet(ulong diskBytes, ChangeUnknown reason, IEnumerable<ChangeRange> ranges) =>
        (DiskBytes, Reason, Ranges) = (diskBytes, reason, ranges);

    /// <summary>Bytes of an extent.</summary>
    public const int ExtentBytes = ChangeLogLayout.ExtentBytes;

    /// <summary>Bytes of the disk.</summary>
    public ulong DiskBytes { get; }

    /// <summary>Why the log does not know; <see cref="ChangeUnknown.None"/> when it does.</summary>
    public ChangeUnknown Reason { get; }

    /// <summary>True when everything may have been written: compare hashes of the whole disk.</summary>
    public bool IsAll => Reason != ChangeUnknown.None;

    /// <summary>
    /// The ranges in the order of the disk; they do not touch each other. When <see cref="IsAll"/>, the whole disk. Read from the file step
    /// by step, so memory does not grow with the disk: it has to stay open, and the pending changes must not be forgotten meanwhile.
    /// </summary>
    /// <exception cref="BlockException">While it is enumerated: the file cannot be read, or is shorter than it was. Take the whole disk
    /// then.</exception>
    public IEnumerable<ChangeRange> Ranges { get; }
}
