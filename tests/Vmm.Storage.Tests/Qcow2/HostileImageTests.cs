using Vmm.Storage.Qcow2;
using Vmm.Storage.Tests.Crash;
using Vmm.Storage.Tests.Qcow2Tools;

namespace Vmm.Storage.Tests.Qcow2;

/// <summary>
/// A VM's disk on an image of any bytes: it is refused, or each of its requests ends, well or with an error; nothing crashes, hangs or
/// takes memory because of what a table says. <c>VMM_DISK_DAMAGES</c> is the number of random ones, <c>VMM_DISK_SEED</c> the first seed.
/// </summary>
[Collection(Scratch.Alone)]
public sealed class HostileImageTests
{
    private const int Requests = 16, LongestRequest = 64 << 10;
    private const long MostMemory = 64 << 20;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    /// <summary>Of all damages of fields some at random; all of them with <c>VMM_DISK_DAMAGES</c>.</summary>
    [Fact]
    public void No_field_of_an_image_makes_the_engine_crash_hang_or_take_memory()
    {
        int first = HostileImages.Number("VMM_DISK_SEED") ?? 0, oneOf = HostileImages.Number("VMM_DISK_DAMAGES") is null ? 16 : 1;
        Random random = new(first);
        int opened = 0, refused = 0;
        foreach (byte[] sound in HostileImages.Sound)
        {
            foreach ((byte[] image, string what) in HostileImages.WithFieldsDamaged(sound, random))
            {
                if (random.Next(oneOf) == 0)
                {
                    _ = Feed(image, random.Next(), what) ? opened++ : refused++;
                }
            }
        }

        Assert.True(opened > 20 && refused > 20, $"{opened} opened, {refused} refused");
    }

    [Fact]
    public void Random_damages_neither()
    {
        int first = HostileImages.Number("VMM_DISK_SEED") ?? 0, images = HostileImages.Number("VMM_DISK_DAMAGES") ?? 150;
        for (int seed = first; seed < first + images; seed++)
        {
            _ = Feed(HostileImages.Random(new Random(seed)), seed, $"seed {seed}");
        }
    }

    // True when it was opened. In a thread of its own: what hangs is told.
    private static bool Feed(byte[] image, int seed, string what)
    {
        bool opened = false;
        Exception? wrong = null;
        long before = GC.GetTotalAllocatedBytes();
        Thread thread = new(() =>
        {
            try
            {
                opened = Use(image, new Random(seed));
            }
            catch (Exception e)
            {
                wrong = e;
            }
        }) { IsBackground = true };
        thread.Start();
        Assert.True(thread.Join(s_patience), $"{what}: hangs");
        Assert.True(wrong is null, $"{what}: {wrong}");
        long took = GC.GetTotalAllocatedBytes() - before;
        Assert.True(took < MostMemory, $"{what}: {took} bytes");
        return opened;
    }

    private static bool Use(byte[] image, Random random)
    {
        SparseBytes content = new() { Length = (ulong)image.Length };
        content.Write(image, 0);
        using CrashFile file = new(content) { Path = "hostile.qcow2" };
        Qcow2Disk disk;
        try
        {
            disk = Qcow2Disk.Open([new ImageLayer(file, ImageFormat.Qcow2)]);
        }
        catch (BlockException e)
        {
            Assert.Contains("hostile.qcow2", e.Message, StringComparison.Ordinal);
            Assert.InRange(e.Message.Length, 1, 2000);
            return false;
        }

        using (disk)
        using (DiskDriver driver = new(disk))
        {
            for (int i = 0; i < Requests; i++)
            {
                Assert.Contains(Request(driver, disk.Geometry.CapacityBytes, random), (DiskStatus[])[DiskStatus.Ok, DiskStatus.IoError]);
            }
        }

        return true;
    }

    // Most of them where the image has something.
    private static DiskStatus Request(DiskDriver driver, ulong capacity, Random random)
    {
        ulong range = Math.Min(capacity, random.Next(4) == 0 ? ulong.MaxValue : 1 << 20);
        ulong at = (ulong)random.NextInt64((long)Math.Max(1, range / 512)) * 512;
        int length = (int)Math.Min((ulong)(random.Next(1, LongestRequest / 512) * 512), (capacity - at) / 512 * 512);
        byte[] data = new byte[Math.Max(length, 512)];
        return random.Next(6) switch
        {
            0 => driver.Flush(),
            1 => driver.WriteZeroes(at, (ulong)data.Length, mayUnmap: true),
            2 => driver.Discard(at, (ulong)data.Length),
            3 => driver.Read(at, data),
            _ => driver.Write(at, data),
        };
    }
}
