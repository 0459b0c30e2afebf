using Vmm.Interop;
using Vmm.Testing;

namespace Vmm.Storage.Tests;

/// <summary>Requests that O_DIRECT refuses (misaligned memory or range), in flight beside requests that it takes.</summary>
public sealed class MixedAlignmentTests
{
    private const int Page = 4096, Sector = 512;

    /// <summary>
    /// The fault this found: the misaligned write went through the page cache, read the page before the direct write landed, and wrote the
    /// old sectors
    /// back later.
    /// </summary>
    [Fact]
    public void Writes_of_sectors_of_one_page_do_not_undo_each_other_whatever_their_memory()
    {
        const int pages = 512;
        using TemporaryFile file = new(pages * Page);
        byte[] before = new byte[pages * Page];
        before.AsSpan().Fill(0x11);
        File.WriteAllBytes(file.Path, before);
        using RawFileBackend disk = RawFileBackend.Open(file.Path);
        Assert.True(disk.UsesDirectIo, "the tests' folder has to lie on a file system with O_DIRECT");
        for (int round = 0; round < 8; round++)
        {
            byte fill = (byte)(0x20 + round);
            using (DiskDriver queue = new(disk, pages * 2))
            using (NativeArray<byte> memory = new((pages * Page) + Page, Page))
            using (NativeArray<IoVector> vectors = new(pages * 2))
            {
                memory.Span.Fill(fill);
                int next = 0;
                for (int page = 0; page < pages; page++)
                {
                    Write(queue, vectors, next++, (ulong)(page * Page), memory.AddressOf(page * Page), 4 * Sector);
                    if (page % 32 == 31)
                    {
                        queue.Loop.Submit();
                        for (int late = page - 31; late <= page; late++)
                        {
                            Write(queue, vectors, next++, (ulong)((late * Page) + (4 * Sector)), memory.AddressOf((late * Page) + 1),
                                2 * Sector);
                        }
                    }
                }

                WaitForAll(queue, next);
                Assert.Equal(DiskStatus.Ok, queue.Flush());
            }

            byte[] content = Content(file.Path, disk);
            for (int sector = 0; sector < content.Length / Sector; sector++)
            {
                byte expected = sector % 8 < 6 ? fill : (byte)0x11;
                Assert.True(content[sector * Sector] == expected,
                    $"round {round}, sector {sector}: {content[sector * Sector]:x2}, expected {expected:x2}");
            }
        }
    }

    /// <summary>
    /// Threads write sectors of their own, which share blocks with those of the others: a lost read-modify-write would show.
    /// </summary>
    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public async Task Sectors_smaller_than_the_block_of_the_device_are_kept_beside_writes_of_other_queues(int threads)
    {
        const int size = 64 * Page;
        using LoopDevice device = new(size);
        using RawFileBackend disk = RawFileBackend.Open(device.Path);
        Assert.True(disk.UsesDirectIo);
        Assert.Equal(4096, disk.Geometry.LogicalBlockSize);
        byte[] model = new byte[size];
        Task[] writers = [.. Enumerable.Range(0, threads).Select(t => Task.Factory.StartNew(
            () => WriteOwnSectors(disk, model, t, threads), CancellationToken.None, TaskCreationOptions.LongRunning,
            TaskScheduler.Default))];
        await Task.WhenAll(writers);
        Assert.Equal(model, Content(device.Path, disk));
    }

    [Fact]
    public void Random_requests_on_a_device_with_big_blocks_agree_with_a_model()
    {
        const int size = 128 * Page;
        using LoopDevice device = new(size);
        using RawFileBackend disk = RawFileBackend.Open(device.Path);
        using DiskDriver driver = new(disk);
        Random random = new(20261128);
        byte[] model = new byte[size];
        for (int i = 0; i < 600; i++)
        {
            // Now and then longer than a bounce buffer.
            int sectors = random.Next(8) == 0 ? random.Next(256, 700) : random.Next(1, 40);
            int at = random.Next(0, (size / Sector) - sectors) * Sector;
            byte[] data = new byte[sectors * Sector];
            int shift = random.Next(2) == 0 ? random.Next(1, 600) : 0;
            int[] cuts = random.Next(2) == 0 ? [] : [data.Length / 3, data.Length / 2];
            switch (random.Next(5))
            {
                case 0 or 1:
                    random.NextBytes(data);
                    Assert.Equal(DiskStatus.Ok, driver.Write((ulong)at, data, shift, cuts));
                    data.CopyTo(model, at);
                    break;
                case 2 or 3:
                    Assert.Equal(DiskStatus.Ok, driver.Read((ulong)at, data, shift, cuts));
                    Assert.True(data.AsSpan().SequenceEqual(model.AsSpan(at, data.Length)),
                        $"request {i}: {data.Length} bytes at {at}, shift {shift}");
                    break;
                default:
                    Assert.Equal(DiskStatus.Ok, driver.WriteZeroes((ulong)at, (ulong)data.Length, random.Next(2) == 0));
                    model.AsSpan(at, data.Length).Clear();
                    break;
            }
        }

        Assert.Equal(model, Content(device.Path, disk));
    }

    // More misaligned requests than there are bounce buffers, in pieces, at once; nothing is allocated for them.
    [Fact]
    public void Misaligned_requests_wait_for_buffers_and_allocate_nothing()
    {
        const int requests = 24, length = 300 * Sector;
        using TemporaryFile file = new(requests * length);
        using RawFileBackend disk = RawFileBackend.Open(file.Path);
        using DiskDriver queue = new(disk, requests);
        using NativeArray<byte> memory = new((requests * length) + Page, Page);
        using NativeArray<IoVector> vectors = new(requests);
        long least = long.MaxValue;
        for (int round = 0; round < 6; round++)
        {
            memory.Span.Fill((byte)(round + 1));
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < requests; i++)
            {
                Write(queue, vectors, i, (ulong)(i * length), memory.AddressOf((i * length) + 3), length);
            }

            WaitForAll(queue, requests);
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
            Assert.Equal(-1, Content(file.Path, disk).AsSpan().IndexOfAnyExcept((byte)(round + 1)));
        }

        Assert.Equal(0, least);
    }

    // Sector s belongs to thread s % threads; runs of one sector, several in flight, misaligned memory every other time.
    private static void WriteOwnSectors(RawFileBackend disk, byte[] model, int thread, int threads)
    {
        const int depth = 16;
        Random random = new(thread);
        int own = model.Length / Sector / threads;
        using DiskDriver queue = new(disk, depth);
        using NativeArray<byte> memory = new(depth * 2 * Sector, Page);
        using NativeArray<IoVector> vectors = new(depth);
        for (int round = 0; round < 150; round++)
        {
            int[] sectors = [.. Enumerable.Range(0, depth).Select(_ => (random.Next(own) * threads) + thread).Distinct()];
            for (int i = 0; i < sectors.Length; i++)
            {
                int at = (i * 2 * Sector) + random.Next(2);
                Span<byte> data = memory.Span.Slice(at, Sector);
                random.NextBytes(data);
                data.CopyTo(model.AsSpan(sectors[i] * Sector));
                Write(queue, vectors, i, (ulong)sectors[i] * Sector, memory.AddressOf(at), Sector);
            }

            WaitForAll(queue, sectors.Length);
        }
    }

    private static void Write(DiskDriver queue, NativeArray<IoVector> vectors, int index, ulong offset, nint memory, int length)
    {
        vectors.Span[index] = new IoVector(memory, (nuint)length);
        queue[index].Prepare(BlockKind.Write, offset, (uint)length);
        queue[index].SetData(vectors.Span.Slice(index, 1));
        queue.Node.Submit(queue[index]);
    }

    private static void WaitForAll(DiskDriver queue, int count)
    {
        queue.WaitForAll();
        for (int i = 0; i < count; i++)
        {
            if (queue.Status(i) != DiskStatus.Ok) // An assertion would allocate, which a test here counts.
            {
                Assert.Fail($"request {i}: {queue.Status(i)}");
            }
        }
    }

    // What the disk holds, past the page cache.
    private static byte[] Content(string path, RawFileBackend disk)
    {
        byte[] content = new byte[disk.Geometry.CapacityBytes];
        using FileDescriptorHandle direct = BlockFile.Open(path, writable: false, direct: true);
        using NativeArray<byte> memory = new(content.Length, Page);
        Assert.Equal(content.Length, BlockFile.ReadAt(direct, memory.Span, 0));
        memory.Span.CopyTo(content);
        return content;
    }
}
