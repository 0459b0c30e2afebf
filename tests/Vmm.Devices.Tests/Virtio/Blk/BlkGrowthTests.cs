using System.Buffers.Binary;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Storage;
using Vmm.Testing;

namespace Vmm.Devices.Tests.Virtio.Blk;

/// <summary>A disk that grows under its driver (virtio 1.2 section 5.2.5: capacity changes by configuration interrupt).</summary>
public sealed class BlkGrowthTests : IDisposable
{
    private const int Before = 1 << 20, After = 3 << 20;

    private readonly string _path = Path.GetTempFileName();

    public BlkGrowthTests() => Resize(Before);

    public void Dispose() => File.Delete(_path);

    [Theory]
    [InlineData(DiskCacheMode.Direct)]
    [InlineData(DiskCacheMode.Buffered)]
    public void The_driver_hears_of_it_and_writes_behind_the_old_end(DiskCacheMode cache)
    {
        using VirtioBlk device = new(RawFileBackend.Open(_path, new() { Cache = cache }));
        using BlkGuest guest = new(device);
        Assert.Equal(1, guest.Request(1, Before / 512, BlkGuest.Data, 4096, false).Status);
        Assert.Equal((ulong)Before, device.RefreshCapacity());
        Assert.Equal(0, guest.ConfigChanges);
        Resize(After);
        Assert.Equal((ulong)After, device.RefreshCapacity());
        Assert.Equal(1, guest.ConfigChanges);
        Assert.Equal(After / 512UL, Capacity(device));
        Assert.Equal(0, guest.Request(1, (After / 512) - 8, BlkGuest.Data, 4096, false).Status);
        Assert.Equal(1, guest.Request(0, (After / 512) - 4, BlkGuest.Data, 4096, true).Status);
        Resize(Before);
        Assert.Equal(BlockErrorKind.BadSize, Assert.Throws<BlockException>(() => device.RefreshCapacity()).Kind);
        Assert.Equal(After / 512UL, Capacity(device));
        Assert.Equal(1, guest.ConfigChanges);
    }

    [Fact]
    public void Less_than_a_logical_block_is_nothing_to_tell()
    {
        using VirtioBlk device = new(
            RawFileBackend.Open(_path, new() { Cache = DiskCacheMode.Buffered }), new() { LogicalBlockSize = 4096 });
        using BlkGuest guest = new(device);
        Resize(Before + 3584);
        Assert.Equal((ulong)Before, device.RefreshCapacity());
        Assert.Equal(0, guest.ConfigChanges);
        Resize(Before + 4096 + 512);
        Assert.Equal((ulong)Before + 4096, device.RefreshCapacity());
        Assert.Equal(1, guest.ConfigChanges);
    }

    /// <summary>A driver that was not ready for interrupts may have read the size before: it is told once it is ready.</summary>
    [Fact]
    public void A_driver_that_was_not_ready_yet_hears_of_it_when_it_is()
    {
        using VirtioBlk device = new(RawFileBackend.Open(_path));
        using BlkGuest guest = new(device, activate: false);
        Resize(After);
        device.RefreshCapacity();
        Assert.Equal(0, guest.ConfigChanges);
        guest.Activate();
        Assert.Equal(1, guest.ConfigChanges);
        Assert.Equal(0, guest.Request(1, (After / 512) - 8, BlkGuest.Data, 4096, false).Status);
        device.Reset();
        guest.Activate();
        Assert.Equal(1, guest.ConfigChanges); // it has read the new size
    }

    /// <summary>Virtio 1.2 section 2.5.1: fields read in parts belong together only when the generation is the same.</summary>
    [Fact]
    public void The_generation_of_the_configuration_changes_with_the_size()
    {
        using VirtioBlk device = new(RawFileBackend.Open(_path));
        ConfigWindow window = new(device);
        byte[] half = new byte[4];
        window.Read(0, half);
        uint generation = window.Generation();
        Resize(After);
        device.RefreshCapacity();
        Assert.NotEqual(generation, window.Generation());
        window.Read(0, half);
        Assert.Equal(After / 512u, BinaryPrimitives.ReadUInt32LittleEndian(half));
    }

    private static ulong Capacity(VirtioBlk device)
    {
        byte[] config = new byte[8];
        device.ReadConfig(0, config);
        return BinaryPrimitives.ReadUInt64LittleEndian(config);
    }

    private void Resize(long bytes)
    {
        using FileStream file = new(_path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
        file.SetLength(bytes);
    }
}
