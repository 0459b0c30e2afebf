namespace Vmm.Storage;

/// <summary>Why a disk cannot be used: the few cases a caller acts on.</summary>
public enum BlockErrorKind
{
    /// <summary>The file does not exist.</summary>
    NotFound,

    /// <summary>This user may not open it that way.</summary>
    AccessDenied,

    /// <summary>Another machine or tool uses it.</summary>
    InUse,

    /// <summary>Its size is zero or not a whole number of sectors.</summary>
    BadSize,

    /// <summary>It is not something a disk can be made of.</summary>
    NotADisk,

    /// <summary>The host failed.</summary>
    Io,

    /// <summary>The tables of an image contradict each other.</summary>
    Damaged,
}

/// <summary>A disk could not be opened or used. Request errors are not exceptions: see <see cref="DiskStatus"/>.</summary>
public sealed class BlockException(BlockErrorKind kind, string message, Exception? cause = null) : Exception(message, cause)
{
    /// <summary>The case.</summary>
    public BlockErrorKind Kind { get; } = kind;

    /// <summary>The disk's file, when there is one.</summary>
    public string? Path { get; init; }

    /// <summary>What a request that fails for this reason ends with.</summary>
    public DiskStatus Status { get; init; } = DiskStatus.IoError;

    /// <summary>Byte offset on the disk, when one place is at fault.</summary>
    public long? Offset { get; init; }
}
