using Vmm.Interop;

namespace Vmm.Storage.Tests;

public sealed class DiskContentTests
{
    private const int Size = (1 << 20) + 512;

    public static TheoryData<string> Kinds => ["memory", "direct", "buffered", "direct on tmpfs", "buffered on tmpfs"];

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Random_requests_agree_with_a_model(string kind)
    {
        using Disk disk = new(kind);
        using DiskDriver driver = new(disk.Backend);
        Random random = new(20261123);
        byte[] model = new byte[Size];
        for (int i = 0; i < 600; i++)
        {
            int sectors = random.Next(1, 64);
            int at = random.Next(0, (Size / 512) - sectors) * 512;
            int length = sectors * 512;
            int shift = random.Next(3) == 0 ? random.Next(1, 600) : 0;
            int[] cuts = random.Next(2) == 0 ? [] : [length / 3, length / 2];
            byte[] data = new byte[length];
            switch (random.Next(6))
            {
                case 0 or 1:
                    random.NextBytes(data);
                    Assert.Equal(DiskStatus.Ok, driver.Write((ulong)at, data, shift, cuts));
                    data.CopyTo(model, at);
                    break;
                case 2 or 3:
                    Assert.Equal(DiskStatus.Ok, driver.Read((ulong)at, data, shift, cuts));
                    Assert.True(data.AsSpan().SequenceEqual(model.AsSpan(at, length)), $"request {i}: {length} bytes at {at}, shift {shift}");
                    break;
                case 4:
                    Assert.Equal(DiskStatus.Ok, driver.WriteZeroes((ulong)at, (ulong)length, random.Next(2) == 0));
                    model.AsSpan(at, length).Clear();
                    break;
                default:
                    Assert.Equal(DiskStatus.Ok, driver.Flush());
                    break;
            }
        }

        byte[] all = new byte[Size];
        Assert.Equal(DiskStatus.Ok, driver.Read(0, all));
        Assert.Equal(model, all);
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void The_last_sector_can_be_written_and_the_one_after_it_is_an_error(string kind)
    {
        using Disk disk = new(kind);
        using DiskDriver driver = new(disk.Backend);
        byte[] data = new byte[512];
        data.AsSpan().Fill(0x5a);
        Assert.Equal(DiskStatus.Ok, driver.Write(Size - 512, data));
        Assert.Equal(DiskStatus.Ok, driver.Read(Size - 512, data));
        Assert.Equal(0x5a, data[511]);
        Assert.Equal(DiskStatus.IoError, driver.Read(Size, data));
        Assert.Equal(DiskStatus.IoError, driver.Read(Size - 512, new byte[1024]));
    }

    [Theory]
    [InlineData("direct")]
    [InlineData("buffered")]
    [InlineData("direct on tmpfs")]
    public void A_file_truncated_under_the_disk_reads_as_an_error(string kind)
    {
        using Disk disk = new(kind);
        using DiskDriver driver = new(disk.Backend);
        using (FileStream file = new(disk.Path!, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
        {
            file.SetLength(8192);
        }

        Assert.Equal(DiskStatus.IoError, driver.Read(4096, new byte[16384]));
        Assert.Equal(DiskStatus.Ok, driver.Read(4096, new byte[4096]));
    }

    [Fact]
    public void Discard_gives_space_back()
    {
        using Disk disk = new("direct");
        using DiskDriver driver = new(disk.Backend);
        byte[] data = new byte[Size - 512];
        Random.Shared.NextBytes(data);
        Assert.Equal(DiskStatus.Ok, driver.Write(0, data));
        Assert.Equal(DiskStatus.Ok, driver.Discard(4096, 65536));
        Assert.Equal(DiskStatus.Ok, driver.Read(4096, data.AsSpan(4096, 65536)));
        Assert.Equal(-1, data.AsSpan(4096, 65536).IndexOfAnyExcept((byte)0));
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Wait_ends_when_a_watched_doorbell_rings(string kind)
    {
        using Disk disk = new(kind);
        using DiskDriver driver = new(disk.Backend);
        using EventFd doorbell = new();
        driver.Queue.Watch(doorbell);
        for (int i = 0; i < 3; i++)
        {
            using Timer ring = new(_ => doorbell.Signal(), null, 5, Timeout.Infinite);
            while (!doorbell.TryTake(out _))
            {
                driver.Queue.Wait();
                driver.Queue.Reap(new DiskCompletion[4]);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Requests_allocate_nothing(string kind)
    {
        using Disk disk = new(kind);
        using IDiskQueue queue = disk.Backend.CreateQueue(32);
        using NativeArray<byte> memory = new(32 * 4096, 4096);
        using NativeArray<IoVector> vectors = new(32);
        DiskCompletion[] done = new DiskCompletion[32];
        // A path taken for the first time may load code once; a cost per request would show in every batch.
        long least = long.MaxValue;
        for (int batch = 0; batch < 5; batch++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 20; i++)
            {
                Round();
            }

            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
        }

        Assert.Equal(0, least);

        void Round()
        {
            for (int i = 0; i < 32; i++)
            {
                vectors.Span[i] = new IoVector(memory.AddressOf(i * 4096), 4096);
                if (i % 2 == 0)
                {
                    queue.Read((ulong)i, (ulong)i * 4096, vectors.AddressOf(i), 1, 4096);
                }
                else
                {
                    queue.Write((ulong)i, (ulong)i * 4096, vectors.AddressOf(i), 1, 4096);
                }
            }

            queue.Submit();
            int finished = 0;
            while (finished < 32)
            {
                int count = queue.Reap(done);
                finished += count;
                if (count == 0)
                {
                    queue.Wait();
                }
            }
        }
    }

    private sealed class Disk : IDisposable
    {
        private readonly TemporaryFile? _file;

        public Disk(string kind)
        {
            if (kind == "memory")
            {
                Backend = new MemoryDiskBackend(Size);
                return;
            }

            _file = new TemporaryFile(Size, inMemory: kind.EndsWith("tmpfs", StringComparison.Ordinal));
            Backend = RawFileBackend.Open(_file.Path, new() { Cache = kind.StartsWith("direct", StringComparison.Ordinal) ? DiskCacheMode.Direct : DiskCacheMode.Buffered });
        }

        public IDiskBackend Backend { get; }

        public string? Path => _file?.Path;

        public void Dispose()
        {
            Backend.Dispose();
            _file?.Dispose();
        }
    }
}
