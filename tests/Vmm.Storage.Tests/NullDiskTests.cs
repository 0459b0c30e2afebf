namespace Vmm.Storage.Tests;

/// <summary>A disk without content: everything but the content is as with any other.</summary>
public sealed class NullDiskTests
{
    private const ulong Size = 1ul << 50;

    [Fact]
    public void What_is_written_is_forgotten_and_all_of_it_reads_as_zeros()
    {
        using NullDiskBackend disk = new(Size);
        using DiskDriver driver = new(disk);
        byte[] data = [.. Enumerable.Repeat((byte)7, 4096)];
        Assert.Equal(DiskStatus.Ok, driver.Write(Size - 4096, data, shift: 1, 100, 2000));
        Assert.Equal(DiskStatus.Ok, driver.WriteThrough(0, data));
        Assert.Equal(DiskStatus.Ok, driver.Read(Size - 4096, data, shift: 3, 1, 4000));
        Assert.All(data, value => Assert.Equal(0, value));
        Assert.Equal(DiskStatus.Ok, driver.Discard(0, 1 << 20));
        Assert.Equal(DiskStatus.Ok, driver.WriteZeroes(4096, 1 << 20, mayUnmap: true));
        Assert.Equal(DiskStatus.Ok, driver.Flush());
        Assert.Equal(Size, disk.DataFrom(0));
    }

    [Fact]
    public void It_has_an_end_and_may_be_read_only()
    {
        using NullDiskBackend disk = new(8192), fixedDisk = new(8192, readOnly: true);
        using DiskDriver driver = new(disk), reader = new(fixedDisk);
        byte[] data = new byte[4096];
        Assert.Equal(DiskStatus.IoError, driver.Read(8192 - 512, data));
        Assert.Equal(DiskStatus.IoError, driver.Write(ulong.MaxValue - 511, data));
        Assert.Equal(DiskStatus.IoError, driver.Discard(8192, 512));
        Assert.Equal(DiskStatus.IoError, reader.Write(0, data));
        Assert.Equal(DiskStatus.Ok, reader.Read(4096, data));
    }

    [Theory]
    [InlineData(0ul)]
    [InlineData(511ul)]
    [InlineData((1ul << 40) + 1)]
    public void Whole_sectors_only(ulong size)
    {
        BlockException refused = Assert.Throws<BlockException>(() => new NullDiskBackend(size));
        Assert.Contains("multiple of 512", refused.Message, StringComparison.Ordinal);
    }
}
