using Vmm.Io;

namespace Vmm.Storage;

/// <summary>A disk in memory, for tests and scratch disks. One writer at a time per range, as with a real disk.</summary>
public sealed class MemoryDiskBackend : IDiskBackend
{
    /// <summary>Makes a zeroed disk of <paramref name="capacityBytes"/>.</summary>
    /// <exception cref="BlockException">The size is zero or not a multiple of 512.</exception>
    public MemoryDiskBackend(int capacityBytes, bool readOnly = false)
    {
        if (capacityBytes <= 0 || capacityBytes % 512 != 0)
        {
            throw new BlockException(BlockErrorKind.BadSize, $"memory disk is {capacityBytes} bytes, not a multiple of 512");
        }

        Content = new byte[capacityBytes];
        Geometry = new BlockGeometry((ulong)capacityBytes, 512, 512, readOnly,
            readOnly ? DiskAbilities.None : DiskAbilities.Discard | DiskAbilities.WriteZeroes);
    }

    /// <summary>The disk's bytes.</summary>
    public byte[] Content { get; }

    /// <inheritdoc/>
    public BlockGeometry Geometry { get; }

    /// <inheritdoc/>
    public IBlockNode CreateNode(IoLoop loop, int depth) => new MemoryNode(this, loop);

    /// <inheritdoc/>
    public void Dispose() { }
}
