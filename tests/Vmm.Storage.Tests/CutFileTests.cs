using Vmm.Storage.Qcow2;
using Vmm.Storage.Tests.Qcow2;

namespace Vmm.Storage.Tests;

/// <summary>Files of a chain that somebody cuts under a disk: what was lost is an error, and not zeros.</summary>
public sealed class CutFileTests : IDisposable
{
    private const int Size = 4 << 20, Left = 1 << 20;

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-cut-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData(DiskCacheMode.Direct, Left)]
    [InlineData(DiskCacheMode.Buffered, Left)]
    [InlineData(DiskCacheMode.Direct, Left + 100)]
    [InlineData(DiskCacheMode.Buffered, Left + 100)]
    [InlineData(DiskCacheMode.Buffered, 0)]
    public void A_raw_base_that_was_cut_fails_the_reads_behind_its_end(DiskCacheMode cache, int left)
    {
        string below = Path.Combine(_folder, "below.raw"), top = Path.Combine(_folder, "top.qcow2");
        byte[] content = new byte[Size], seen = new byte[4096];
        new Random(1).NextBytes(content);
        File.WriteAllBytes(below, content);
        QemuImg.Run("create", "-q", "-f", "qcow2", "-b", below, "-F", "raw", top, $"{Size * 2}");
        using Qcow2Disk disk = Qcow2Disk.Open([Layer(top, ImageFormat.Qcow2, cache, false), Layer(below, ImageFormat.Raw, cache, true)]);
        using DiskDriver driver = new(disk);
        Assert.Equal(DiskStatus.Ok, driver.Read(Size - 4096, seen));
        Assert.True(seen.AsSpan().SequenceEqual(content.AsSpan(Size - 4096)));
        Cut(below, left);
        Assert.Equal(DiskStatus.IoError, driver.Read(Size - 4096, seen));
        Assert.Equal(DiskStatus.IoError, driver.Read((ulong)(left / 4096 * 4096), seen));
        Assert.Equal(DiskStatus.IoError, driver.Write(Size - (64 << 10) + 512, seen)); // would copy what is lost
        Assert.Equal(DiskStatus.Ok, driver.Read(Size, seen)); // the disk is longer than its base was
        Assert.Equal(new byte[4096], seen);
        if (left > 0)
        {
            Assert.Equal(DiskStatus.Ok, driver.Read(0, seen));
            Assert.True(seen.AsSpan().SequenceEqual(content.AsSpan(0, 4096)));
        }

        Assert.Equal(DiskStatus.Ok, driver.Write(Size - (64 << 10), new byte[64 << 10])); // all of a cluster needs nothing from below
        Assert.Equal(DiskStatus.Ok, driver.Read(Size - 4096, seen));
        driver.Node.FlushAndClose(driver.Loop);
    }

    [Theory]
    [InlineData(DiskCacheMode.Direct)]
    [InlineData(DiskCacheMode.Buffered)]
    public void An_image_that_was_cut_fails_the_reads_behind_its_end(DiskCacheMode cache)
    {
        string raw = Path.Combine(_folder, "content.raw"), image = Path.Combine(_folder, "image.qcow2");
        byte[] content = new byte[Size], seen = new byte[4096];
        new Random(2).NextBytes(content);
        File.WriteAllBytes(raw, content);
        QemuImg.Run("convert", "-f", "raw", "-O", "qcow2", raw, image);
        using Qcow2Disk disk = Qcow2Disk.Open([Layer(image, ImageFormat.Qcow2, cache, readOnly: true)]);
        using DiskDriver driver = new(disk);
        Assert.Equal(DiskStatus.Ok, driver.Read(Size - 4096, seen));
        Cut(image, (int)new FileInfo(image).Length - (256 << 10));
        Assert.Equal(DiskStatus.IoError, driver.Read(Size - 4096, seen));
        Assert.Equal(DiskStatus.Ok, driver.Read(0, seen));
        Assert.True(seen.AsSpan().SequenceEqual(content.AsSpan(0, 4096)));
    }

    private static void Cut(string path, int length)
    {
        using FileStream file = new(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
        file.SetLength(length);
    }

    private static ImageLayer Layer(string path, ImageFormat format, DiskCacheMode cache, bool readOnly) =>
        new(new RawImageFile(RawFileBackend.Open(path, new() { IsImage = true, ReadOnly = readOnly, Cache = cache })), format);
}
