using Vmm.Io;

namespace Vmm.Storage;

/// <summary>What a disk can do beyond read, write and flush.</summary>
[Flags]
public enum DiskAbilities
{
    /// <summary>Nothing more.</summary>
    None = 0,

    /// <summary>Takes <see cref="BlockKind.Discard"/>.</summary>
    Discard = 1,

    /// <summary>Takes <see cref="BlockKind.WriteZeroes"/>.</summary>
    WriteZeroes = 2,
}

/// <summary>How a disk request ended.</summary>
public enum DiskStatus
{
    /// <summary>Done, in full.</summary>
    Ok,

    /// <summary>The host failed; for reads the buffers' content is undefined.</summary>
    IoError,

    /// <summary>The host's file system is full.</summary>
    NoSpace,

    /// <summary>The disk cannot do that.</summary>
    NotSupported,
}

/// <summary>A disk's content. Thread-safe; I/O goes through nodes, one for each loop. Dispose the nodes first.</summary>
public interface IDiskBackend : IDisposable
{
    /// <summary>What the disk is like.</summary>
    BlockGeometry Geometry { get; }

    /// <summary>
    /// Makes the node through which <paramref name="loop"/> reaches the disk, for up to <paramref name="depth"/> requests in flight. On the
    /// loop's thread.
    /// </summary>
    /// <exception cref="BlockException">The host has no resources for it.</exception>
    IBlockNode CreateNode(IoLoop loop, int depth);
}
