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
    /// <summary>What the disk is like. Its size can grow, see <see cref="OnGeometryChanged"/>.</summary>
    BlockGeometry Geometry { get; }

    /// <summary>
    /// Calls <paramref name="changed"/> whenever <see cref="Geometry"/> is another one, of which its nodes know already; from any thread,
    /// one listener. A disk that never changes calls nobody.
    /// </summary>
    void OnGeometryChanged(Action changed)
    {
    }

    /// <summary>Looks again how large the disk is. Any thread.</summary>
    /// <exception cref="BlockException">It cannot be looked at, or is smaller than before: its size stays as it was announced.</exception>
    void Refresh()
    {
    }

    /// <summary>
    /// Makes the disk larger when its size is its own and not its file's, as that of an image; what is new reads as zeros. Durable when
    /// this returns; then it tells as <see cref="OnGeometryChanged"/> says. Blocks. Any thread.
    /// </summary>
    /// <exception cref="BlockException">It cannot have that size, or the host failed: it has its old one.</exception>
    void Enlarge(ulong bytes) => throw new BlockException(
        BlockErrorKind.BadSize, "the disk has the size of its file or device, or is being copied, and cannot be made larger from here");

    /// <summary>Whether the host has space for what the guest writes next, as far as can be seen. Any thread.</summary>
    bool HasSpace => true;

    /// <summary>
    /// Whether what failed so may succeed now, as far as can be seen: a machine that waits for it then goes on by itself. Any thread.
    /// </summary>
    bool CanGoOn(DiskStatus fault) => fault == DiskStatus.NoSpace && HasSpace;

    /// <summary>
    /// Makes the node through which <paramref name="loop"/> reaches the disk, for up to <paramref name="depth"/> requests in flight. On the
    /// loop's thread.
    /// </summary>
    /// <exception cref="BlockException">The host has no resources for it.</exception>
    IBlockNode CreateNode(IoLoop loop, int depth);

    /// <summary>
    /// The first byte from <paramref name="offset"/> on that may be something else than zero, as far as the disk knows without reading; its
    /// capacity when there is none. Any thread; what is written meanwhile may or may not count.
    /// </summary>
    ulong DataFrom(ulong offset) => offset;
}
