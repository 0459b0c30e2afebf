using Vmm.Storage.Qcow2;

namespace Vmm.Storage.Tests.Qcow2;

/// <summary>Images in use, with qemu-img as the judge.</summary>
public sealed class Qcow2DiskTests : IDisposable
{
    private const int Size = 24 << 20;

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-qcow2-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData("cluster_size=64k", DiskCacheMode.Direct)]
    [InlineData("cluster_size=64k", DiskCacheMode.Buffered)]
    [InlineData("cluster_size=4k", DiskCacheMode.Direct)]
    [InlineData("cluster_size=512", DiskCacheMode.Buffered)]
    [InlineData("cluster_size=2M", DiskCacheMode.Buffered)]
    [InlineData("cluster_size=64k,extended_l2=on", DiskCacheMode.Direct)]
    [InlineData("cluster_size=16k,extended_l2=on", DiskCacheMode.Buffered)]
    [InlineData("cluster_size=64k,refcount_bits=1", DiskCacheMode.Buffered)]
    [InlineData("cluster_size=4k,refcount_bits=64", DiskCacheMode.Buffered)]
    [InlineData("cluster_size=64k,compat=0.10", DiskCacheMode.Buffered)]
    public void Random_requests_agree_with_a_model_and_the_image_is_sound(string options, DiskCacheMode cache)
    {
        string image = Image("disk.qcow2"), raw = Image("model.raw");
        QemuImg.Run("create", "-q", "-f", "qcow2", "-o", options, image, $"{Size}");
        byte[] model = new byte[Size];
        for (int round = 0; round < 3; round++)
        {
            using Qcow2Disk disk = Open(cache, image);
            using DiskDriver driver = new(disk);
            Work(driver, model, new Random(round), 300);
        }

        File.WriteAllBytes(raw, model);
        QemuImg.Run("check", "-q", image);
        QemuImg.Run("compare", "-f", "qcow2", "-F", "raw", image, raw);
    }

    [Theory]
    [InlineData("cluster_size=64k")]
    [InlineData("cluster_size=64k,extended_l2=on")]
    [InlineData("cluster_size=4k")]
    public void A_differencing_disk_shows_its_base_where_it_was_not_written(string options)
    {
        string lowest = Image("base.raw"), middle = Image("middle.qcow2"), top = Image("top.qcow2"), raw = Image("model.raw");
        byte[] model = new byte[Size];
        new Random(1).NextBytes(model.AsSpan(0, Size - (3 << 20) - 512)); // the base is shorter
        File.WriteAllBytes(lowest, model[..(Size - (3 << 20) - 512)]);
        QemuImg.Run("create", "-q", "-f", "qcow2", "-b", lowest, "-F", "raw", middle, $"{Size}");
        QemuImg.Run("create", "-q", "-f", "qcow2", "-o", options, "-b", middle, "-F", "qcow2", top, $"{Size}");
        using (Qcow2Disk disk = Qcow2Disk.Open([Layer(DiskCacheMode.Buffered, middle), Layer(DiskCacheMode.Buffered, lowest, true)]))
        using (DiskDriver driver = new(disk))
        {
            Work(driver, model, new Random(2), 100);
        }

        for (int round = 0; round < 2; round++)
        {
            using Qcow2Disk disk = Open(DiskCacheMode.Direct, top, middle, lowest);
            using DiskDriver driver = new(disk);
            Work(driver, model, new Random(round + 3), 300);
        }

        File.WriteAllBytes(raw, model);
        QemuImg.Run("check", "-q", top);
        QemuImg.Run("check", "-q", middle);
        QemuImg.Run("compare", "-f", "qcow2", "-F", "raw", top, raw);
    }

    [Theory]
    [InlineData("zlib")]
    [InlineData("zstd")]
    public void Compressed_clusters_are_read_and_replaced(string type)
    {
        string raw = Image("model.raw"), image = Image("disk.qcow2");
        byte[] model = new byte[Size];
        Random random = new(5);
        for (int at = 0; at < Size; at += 4096)
        {
            model.AsSpan(at, 4096).Fill((byte)random.Next(4));
        }

        File.WriteAllBytes(raw, model);
        QemuImg.Run("convert", "-q", "-c", "-f", "raw", "-O", "qcow2", "-o", $"compression_type={type}", raw, image);
        using (Qcow2Disk disk = Open(DiskCacheMode.Direct, image))
        using (DiskDriver driver = new(disk))
        {
            Work(driver, model, random, 300);
        }

        File.WriteAllBytes(raw, model);
        QemuImg.Run("check", "-q", image);
        QemuImg.Run("compare", "-f", "qcow2", "-F", "raw", image, raw);
    }

    private static void Work(DiskDriver driver, byte[] model, Random random, int requests)
    {
        for (int i = 0; i < requests; i++)
        {
            int sectors = random.Next(8) == 0 ? random.Next(1, 1024) : random.Next(1, 64);
            int at = random.Next(0, (Size / 512) - sectors) * 512, length = sectors * 512;
            byte[] data = new byte[length];
            switch (random.Next(8))
            {
                case 0 or 1 or 2:
                    random.NextBytes(data);
                    Assert.Equal(DiskStatus.Ok, driver.Write((ulong)at, data, 0, length / 3));
                    data.CopyTo(model, at);
                    break;
                case 3 or 4:
                    Assert.Equal(DiskStatus.Ok, driver.Read((ulong)at, data, 0, length / 2));
                    Assert.True(data.AsSpan().SequenceEqual(model.AsSpan(at, length)), $"request {i}: {length} bytes at {at}");
                    break;
                case 5:
                    Assert.Equal(DiskStatus.Ok, driver.WriteZeroes((ulong)at, (ulong)length, random.Next(2) == 0));
                    model.AsSpan(at, length).Clear();
                    break;
                case 6:
                    Assert.Equal(DiskStatus.Ok, driver.Discard((ulong)at, (ulong)length));
                    Assert.Equal(DiskStatus.Ok, driver.Read((ulong)at, data));
                    data.CopyTo(model, at); // whatever a discard leaves, it stays so
                    break;
                default:
                    bool flush = random.Next(2) == 0;
                    Assert.Equal(DiskStatus.Ok, flush ? driver.Flush() : driver.WriteThrough((ulong)at, model.AsSpan(at, 512)));
                    break;
            }
        }
    }

    private static Qcow2Disk Open(DiskCacheMode cache, params string[] images) =>
        Qcow2Disk.Open([.. images.Select((image, i) => Layer(cache, image, i > 0))]);

    private static ImageLayer Layer(DiskCacheMode cache, string path, bool readOnly = false)
    {
        RawFileBackend file = RawFileBackend.Open(path, new() { IsImage = true, Cache = cache, ReadOnly = readOnly });
        bool isRaw = path.EndsWith(".raw", StringComparison.Ordinal);
        return new ImageLayer(new RawImageFile(file), isRaw ? ImageFormat.Raw : ImageFormat.Qcow2);
    }

    private string Image(string name) => Path.Combine(_folder, name);
}
