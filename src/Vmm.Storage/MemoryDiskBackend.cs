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
        ReadOnly = readOnly;
    }

    /// <summary>The disk's bytes.</summary>
    public byte[] Content { get; }

    /// <inheritdoc/>
    public ulong CapacityBytes => (ulong)Content.Length;

    /// <inheritdoc/>
    public int LogicalBlockSize => 512;

    /// <inheritdoc/>
    public int PhysicalBlockSize => 512;

    /// <inheritdoc/>
    public bool ReadOnly { get; }

    /// <inheritdoc/>
    public DiskAbilities Abilities => ReadOnly ? DiskAbilities.None : DiskAbilities.Discard | DiskAbilities.WriteZeroes;

    /// <inheritdoc/>
    public IDiskQueue CreateQueue(int depth) => new MemoryDiskQueue(Content, depth);

    /// <inheritdoc/>
    public void Dispose() { }
}
