using System.Diagnostics;
using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.Tests;

/// <summary>
/// Flushes of several queues of one raw file: the kernel tells one of them what was lost, and none may say that all is well.
/// </summary>
public sealed class FlushGateTests
{
    [Theory]
    [InlineData(DiskCacheMode.Direct, 2)]
    [InlineData(DiskCacheMode.Direct, 4)]
    [InlineData(DiskCacheMode.Buffered, 4)]
    public void A_write_that_the_kernel_lost_fails_the_flushes_of_every_queue(DiskCacheMode cache, int queues)
    {
        for (int loseAt = 6; loseAt < 12; loseAt++)
        {
            using TemporaryFile file = new(1 << 20);
            using RawFileBackend disk = RawFileBackend.Open(file.Path, new() { Cache = cache });
            LossyKernel kernel = new(loseAt);
            disk.IssueFlush = kernel.Flush;
            Together(queues, queue => FlushUntilOneFails(disk, kernel, queue));
            Assert.Equal(1, kernel.MostAtOnce);
        }
    }

    [Fact]
    public void Flushes_that_wait_share_the_next_one()
    {
        using TemporaryFile file = new(1 << 20);
        using RawFileBackend disk = RawFileBackend.Open(file.Path);
        LossyKernel kernel = new(loseAt: int.MaxValue);
        disk.IssueFlush = kernel.Flush;
        using Barrier begin = new(4);
        Together(4, _ =>
        {
            using DiskDriver driver = new(disk);
            bool ok = true;
            for (int round = 0; round < 10; round++)
            {
                begin.SignalAndWait();
                SubmitAll(driver);
                driver.WaitForAll();
                ok &= Enumerable.Range(0, 8).All(i => driver.Status(i) == DiskStatus.Ok);
            }

            Assert.True(ok);
        });

        Assert.InRange(kernel.Count, 10 * 2, 10 * 4 * 2); // of 320: in each round the first, and those that were late for the second
    }

    [Fact]
    public void Waiting_for_another_queues_flush_allocates_nothing()
    {
        using TemporaryFile file = new(1 << 20, inMemory: true);
        using RawFileBackend disk = RawFileBackend.Open(file.Path);
        using Barrier begin = new(2);
        Together(2, _ =>
        {
            using DiskDriver driver = new(disk);
            long allocated = 0;
            for (int round = 0; round < 300; round++)
            {
                begin.SignalAndWait();
                long before = GC.GetAllocatedBytesForCurrentThread();
                SubmitAll(driver);
                driver.WaitForAll();
                allocated = round < 100 ? 0 : allocated + GC.GetAllocatedBytesForCurrentThread() - before;
            }

            Assert.Equal(0, allocated);
        });
    }

    private static void SubmitAll(DiskDriver driver)
    {
        for (int i = 0; i < 8; i++)
        {
            driver[i].Prepare(BlockKind.Flush);
            driver.Node.Submit(driver[i]);
        }
    }

    private static void FlushUntilOneFails(RawFileBackend disk, LossyKernel kernel, int queue)
    {
        using DiskDriver driver = new(disk, depth: 3);
        using NativeArray<byte> memory = new(4096, 4096);
        using NativeArray<IoVector> vectors = new(1);
        vectors.Span[0] = new IoVector(memory.AddressOf(0), 4096);
        bool failed = false;
        for (int after = 0; after < 5; after += failed ? 1 : 0)
        {
            long begin = kernel.Tick();
            driver[0].Prepare(BlockKind.Flush);
            driver[1].Prepare(BlockKind.Write, (ulong)queue * 4096, 4096, BlockFlags.Fua);
            driver[1].SetData(vectors.Span);
            driver[2].Prepare(BlockKind.Flush);
            for (int i = 0; i < 3; i++)
            {
                driver.Node.Submit(driver[i]);
            }

            driver.WaitForAll();
            bool before = failed;
            for (int i = 0; i < 3; i++)
            {
                bool isLie = driver.Status(i) == DiskStatus.Ok && begin > kernel.LostAt;
                Assert.False(isLie, $"request {i} of queue {queue} was said to be stable, and a write before it was lost");
                Assert.False(before && driver.Status(i) == DiskStatus.Ok);
                failed |= driver.Status(i) != DiskStatus.Ok;
            }
        }
    }

    private static void Together(int count, Action<int> run)
    {
        Exception? failure = null;
        Thread[] threads = [.. Enumerable.Range(0, count).Select(i => new Thread(() =>
        {
            try
            {
                run(i);
            }
            catch (Exception error)
            {
                failure = error;
            }
        }))];
        Array.ForEach(threads, thread => thread.Start());
        Array.ForEach(threads, thread => thread.Join());
        Assert.Null(failure);
    }

    /// <summary>
    /// Takes a millisecond for a flush. One write is lost when a certain flush begins; the first to end is told, and takes long to say so.
    /// </summary>
    private sealed class LossyKernel(int loseAt)
    {
        private readonly Lock _gate = new();
        private long _clock, _lostAt = long.MaxValue;
        private bool _isUntold;
        private int _inFlight;

        public int Count { get; private set; }

        public int MostAtOnce { get; private set; }

        /// <summary>When the write was lost, by <see cref="Tick"/>.</summary>
        public long LostAt => Interlocked.Read(ref _lostAt);

        public long Tick() => Interlocked.Increment(ref _clock);

        public void Flush(IoLoop loop, BlockRequest request, FileDescriptorHandle file)
        {
            Debug.Assert(!file.IsClosed);
            lock (_gate)
            {
                MostAtOnce = Math.Max(MostAtOnce, ++_inFlight);
                if (++Count == loseAt)
                {
                    _isUntold = true;
                    Interlocked.Exchange(ref _lostAt, Tick());
                }
            }

            loop.AddTimer(() => End(loop, request)).SetMicroseconds(1000);
        }

        private void End(IoLoop loop, BlockRequest request)
        {
            bool tells;
            lock (_gate)
            {
                tells = _isUntold;
                _isUntold = false;
            }

            if (tells)
            {
                loop.AddTimer(() => Over(loop, request, -Errno.EIO)).SetMicroseconds(5000);
            }
            else
            {
                Over(loop, request, 0);
            }
        }

        private void Over(IoLoop loop, BlockRequest request, int result)
        {
            lock (_gate)
            {
                _inFlight--;
            }

            loop.CompleteLater(request, result);
        }
    }
}
