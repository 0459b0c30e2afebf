using System.Buffers.Binary;
using Vmm.Devices.Virtio.Blk;
using Vmm.Storage;

namespace Vmm.Devices.Tests.Virtio.Blk;

/// <summary>What a disk is like as its driver sees it: block sizes, topology, and what they refuse (virtio 1.2 5.2.4 to 5.2.6).</summary>
public sealed class BlkShapeTests
{
    private const int Capacity = 1 << 20;
    private const ulong BlockSizeFeature = 1UL << 6;

    [Theory]
    [InlineData(0UL, 4096, 0)]
    [InlineData(8UL, 8192, 0)]
    [InlineData(1UL, 4096, 1)]
    [InlineData(8UL, 512, 1)]
    [InlineData(0UL, 4096 + 512, 1)]
    [InlineData((Capacity / 512) - 8UL, 4096, 0)]
    [InlineData((Capacity / 512) - 4UL, 4096, 1)]
    public void Only_whole_logical_blocks_are_transferred(ulong sector, int length, int status)
    {
        using BlkGuest guest = NewGuest(4096);
        Assert.Equal(status, guest.Request(0, sector, BlkGuest.Data, length, true).Status);
        Assert.Equal(status, guest.Request(1, sector, BlkGuest.Data, length, false).Status);
        Assert.Equal(status, guest.RequestRange(13, sector, (uint)length / 512, 0));
        Assert.Equal(status, guest.RequestRange(11, sector, (uint)length / 512, 0));
    }

    [Fact]
    public void A_driver_that_did_not_take_the_block_size_has_sectors()
    {
        using BlkGuest guest = NewGuest(4096, ~BlockSizeFeature);
        Assert.Equal(0, guest.Request(1, 3, BlkGuest.Data, 512, false).Status);
        Assert.Equal(0, guest.Request(0, 3, BlkGuest.Data, 512, true).Status);
        Assert.Equal(1, guest.Request(0, 3, BlkGuest.Data, 100, true).Status);
    }

    [Fact]
    public void A_disk_that_is_not_whole_logical_blocks_is_refused()
    {
        using MemoryDiskBackend disk = new(4096 + 512);
        BlockException refused = Assert.Throws<BlockException>(() => new VirtioBlk(disk, new() { LogicalBlockSize = 4096 }));
        Assert.Equal(BlockErrorKind.BadSize, refused.Kind);
        Assert.Contains("logicalBlockSize", refused.Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => new VirtioBlk(disk, new() { LogicalBlockSize = 1024 }));
        using BlkGuest as512 = new(new VirtioBlk(disk, new() { LogicalBlockSize = 512 }));
        Assert.Equal(0, as512.Request(0, 8, BlkGuest.Data, 512, true).Status);
    }

    /// <summary>blk_size, physical_block_exp, alignment_offset, min_io_size, opt_io_size, discard_sector_alignment.</summary>
    [Theory]
    [InlineData(null, 512u, 3, 7, 128, 2048u, 2048u)]
    [InlineData(512, 512u, 3, 7, 128, 2048u, 2048u)]
    [InlineData(4096, 4096u, 0, 0, 16, 256u, 2048u)]
    public void The_driver_sees_the_topology_of_the_storage_in_its_own_blocks(
        int? logical, uint size, int exponent, int offset, int minimum, uint optimal, uint discard)
    {
        using FaultyDisk disk = new(new MemoryDiskBackend(Capacity))
        {
            Shape = new BlockGeometry(Capacity, 512, 4096, false, DiskAbilities.Discard)
            {
                MinimumIo = 64 * 1024,
                OptimalIo = 1 << 20,
                AlignmentOffset = 3584,
                DiscardGranularity = 1 << 20,
            },
        };
        using VirtioBlk device = new(disk, new() { LogicalBlockSize = logical });
        byte[] config = new byte[device.ConfigLength];
        device.ReadConfig(0, config);
        Assert.Equal(size, BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(20)));
        Assert.Equal(exponent, config[24]);
        Assert.Equal(offset, config[25]);
        Assert.Equal(minimum, BinaryPrimitives.ReadUInt16LittleEndian(config.AsSpan(26)));
        Assert.Equal(optimal, BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(28)));
        Assert.Equal(discard, BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(44)));
    }

    [Fact]
    public void Secure_erase_is_not_offered_and_refused()
    {
        using BlkGuest guest = NewGuest(512);
        Assert.Equal(0UL, guest.Device.DeviceFeatures & (1UL << 16)); // VIRTIO_BLK_F_SECURE_ERASE
        byte[] before = [.. ((MemoryDiskBackend)_disk!).Content];
        Assert.Equal(2, guest.RequestRange(14, 0, 8, 0));
        Assert.Equal(before, ((MemoryDiskBackend)_disk).Content);
    }

    private IDiskBackend? _disk;

    private BlkGuest NewGuest(int logical, ulong features = ulong.MaxValue)
    {
        MemoryDiskBackend disk = new(Capacity);
        new Random(1).NextBytes(disk.Content);
        _disk = disk;
        return new BlkGuest(new VirtioBlk(disk, new() { LogicalBlockSize = logical }), features);
    }
}
