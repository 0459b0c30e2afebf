using System.Diagnostics;

namespace Vmm.Storage.Tests;

public sealed class LatencyHistogramTests
{
    [Theory]
    [InlineData(0, 0)]
    [InlineData(1, 1)]
    [InlineData(2, 2)]
    [InlineData(3, 2)]
    [InlineData(4, 3)]
    [InlineData(1023, 10)]
    [InlineData(1024, 11)]
    [InlineData(1L << 32, LatencyHistogram.Buckets - 1)]
    [InlineData(-5, 0)]
    public void Bounds_are_powers_of_two_of_a_microsecond(long microseconds, int bucket)
    {
        LatencyHistogram histogram = new();
        histogram.Add(microseconds * Stopwatch.Frequency / 1_000_000);
        Assert.Equal([bucket], Enumerable.Range(0, LatencyHistogram.Buckets).Where(i => histogram[i] == 1));
        Assert.InRange(histogram.Microseconds, Math.Max(microseconds, 0) - 1, Math.Max(microseconds, 0) + 1);
    }

    [Fact]
    public void A_router_counts_each_request_once_at_each_stage_and_those_that_waited_longer()
    {
        using MemoryDiskBackend disk = new(4096);
        RequestRouter? router = null;
        StageLatencies stages = new();
        using DiskDriver driver = new(loop => router = new RequestRouter(loop, disk.CreateNode(loop, 4)) { Latencies = stages }, 4);
        driver.Flush();
        driver[1].Prepare(BlockKind.None);
        router!.Submit(driver[1]); // nothing for storage
        driver.WaitForAll();
        router.Hold();
        driver[0].Prepare(BlockKind.Flush);
        router.Submit(driver[0]);
        Thread.Sleep(5);
        driver.Loop.Poll(); // time is that of the loop's round: a hold ends in a later one than it began
        router.Resume();
        driver.WaitForAll();
        Assert.Equal(3, All(stages.Wait));
        Assert.Equal(2, All(stages.Storage));
        Assert.True(Enumerable.Range(13, LatencyHistogram.Buckets - 13).Sum(i => stages.Wait[i]) == 1, "one waited 5 ms");
    }

    private static long All(LatencyHistogram histogram) => Enumerable.Range(0, LatencyHistogram.Buckets).Sum(i => histogram[i]);
}
