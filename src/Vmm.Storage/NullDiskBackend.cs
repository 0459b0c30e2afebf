using Vmm.Io;

namespace Vmm.Storage;

/// <summary>
/// A disk without content: it reads as zeros, and what is written is forgotten. What a guest, a front end and the nodes before a leaf cost
/// is measured with it. Any size, since nothing keeps it.
/// </summary>
public sealed class NullDiskBackend : IDiskBackend
{
    /// <summary>Makes one.</summary>
    /// <param name="capacityBytes">Its size, a multiple of 512.</param>
    /// <param name="readOnly">Writes are refused.</param>
    /// <exception cref="BlockException">The size is zero or not a multiple of 512.</exception>
    public NullDiskBackend(ulong capacityBytes, bool readOnly = false)
    {
        if (capacityBytes == 0 || capacityBytes % 512 != 0)
        {
            throw new BlockException(BlockErrorKind.BadSize, $"a disk without content of {capacityBytes} bytes: not a multiple of 512");
        }

        Geometry = new BlockGeometry(capacityBytes, 512, 512, readOnly,
            readOnly ? DiskAbilities.None : DiskAbilities.Discard | DiskAbilities.WriteZeroes);
    }

    /// <inheritdoc/>
    public BlockGeometry Geometry { get; }

    /// <summary>There is no data behind any byte.</summary>
    public ulong DataFrom(ulong offset) => Geometry.CapacityBytes;

    /// <inheritdoc/>
    public IBlockNode CreateNode(IoLoop loop, int depth) => new NullNode(this, loop);

    /// <inheritdoc/>
    public void Dispose() { }
}
