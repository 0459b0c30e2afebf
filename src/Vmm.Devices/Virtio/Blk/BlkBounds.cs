namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// Which ranges a driver may ask for. Sectors are 512 bytes whatever the block size (virtio 1.2 section 5.2.4). A driver that took
/// VIRTIO_BLK_F_BLK_SIZE knows the logical block: what is not whole blocks of it is the driver's error, as on a real disk. One that did not
/// take it can only know sectors.
/// </summary>
/// <param name="config">What the driver is told; the disk can grow.</param>
/// <param name="features">What it negotiated.</param>
internal readonly struct BlkBounds(BlkConfig config, ulong features)
{
    private const ulong MaxTransfer = 1UL << 30;

    private readonly ulong _block = (features & BlkFeatures.BlockSize) != 0 ? (ulong)config.LogicalBlockSize : 512;

    /// <summary>True when the range is on the disk, in whole blocks and not too long.</summary>
    internal bool Allow(ulong sector, ulong bytes)
    {
        ulong sectors = config.CapacityBytes / 512;
        return bytes <= MaxTransfer && sector <= sectors && bytes / 512 <= sectors - sector && ((sector * 512) | bytes) % _block == 0;
    }
}
