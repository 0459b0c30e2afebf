using FsCheck;
using FsCheck.Fluent;
using Vmm.Devices.Virtio;

namespace Vmm.Devices.Tests.Virtio;

public sealed class RateLimiterTests
{
    private const long Second = 1_000_000_000;

    [Fact]
    public void No_limit_is_no_limiter()
    {
        Assert.Null(RateLimiter.Create(null, 0));
        Assert.Null(RateLimiter.Create(new RateLimit(0, 0, 5, 5), 0));
        Assert.Throws<ArgumentException>(() => RateLimiter.Create(new RateLimit(RateLimit.Most + 1, 0), 0));
    }

    [Fact]
    public void After_the_burst_the_rate_counts()
    {
        RateLimiter limiter = RateLimiter.Create(new RateLimit(1000, 0, BurstBytes: 500), 0)!;
        Assert.True(limiter.TryTake(300, 0, out _));
        Assert.True(limiter.TryTake(200, 0, out _));
        Assert.False(limiter.TryTake(10, 0, out int wait));
        Assert.Equal(10, wait);
        Assert.False(limiter.TryTake(10, (10 * Second / 1000) - 1, out wait));
        Assert.Equal(1, wait);
        Assert.True(limiter.TryTake(10, 10 * Second / 1000, out _));
        Assert.False(limiter.TryTake(400, 10 * Second / 1000, out wait));
        Assert.Equal(50, wait); // never longer, so that a changed limit counts soon
    }

    [Fact]
    public void A_pause_earns_no_more_than_the_burst()
    {
        RateLimiter limiter = RateLimiter.Create(new RateLimit(0, 10, BurstOperations: 3), 0)!;
        for (int i = 0; i < 3; i++)
        {
            Assert.True(limiter.TryTake(0, 3600 * Second, out _));
        }

        Assert.False(limiter.TryTake(0, 3600 * Second, out _));
    }

    [Fact]
    public void A_request_larger_than_the_burst_passes_when_the_bucket_is_full_and_is_paid_for()
    {
        RateLimiter limiter = RateLimiter.Create(new RateLimit(1000, 0, BurstBytes: 100), 0)!;
        Assert.True(limiter.TryTake(1100, 0, out _));
        Assert.False(limiter.TryTake(1, Second, out _));
        Assert.True(limiter.TryTake(1, Second + (Second / 1000), out _));
    }

    [Fact]
    public void A_clock_that_goes_back_earns_nothing()
    {
        RateLimiter limiter = RateLimiter.Create(new RateLimit(0, 1, BurstOperations: 1), 5 * Second)!;
        Assert.True(limiter.TryTake(0, 5 * Second, out _));
        Assert.False(limiter.TryTake(0, 2 * Second, out _));
        Assert.False(limiter.TryTake(0, (6 * Second) - 1, out _));
        Assert.True(limiter.TryTake(0, 6 * Second, out _));
    }

    /// <summary>In every interval, not only from the start: burst + rate·t at most, and by waiting as told, nearly that.</summary>
    [Fact]
    public void Never_more_than_burst_and_rate() => Check.One(Config.QuickThrowOnFailure.WithMaxTest(100),
        Prop.ForAll(
            Gen.Choose(0, 50_000_000).ToArbitrary(), Gen.Choose(0, 65535).ToArbitrary(), Gen.Choose(0, int.MaxValue).ToArbitrary(), Holds));

    private static bool Holds(int rateSeed, int burstSeed, int seed)
    {
        ulong rate = 1 + (ulong)rateSeed, operations = 1 + (ulong)((uint)seed % 100_000), burst = 1 + (ulong)burstSeed;
        RateLimiter limiter = RateLimiter.Create(new RateLimit(rate, operations, burst, 7), 0)!;
        Random random = new(seed);
        List<(long At, ulong Bytes)> passed = [];
        long now = 0;
        for (int i = 0; i < 300; i++)
        {
            ulong bytes = (ulong)random.NextInt64((long)burst + 1);
            if (limiter.TryTake(bytes, now, out int wait))
            {
                passed.Add((now, bytes));
                now += random.Next(3) == 0 ? random.NextInt64(Second / 100) : 0;
            }
            else
            {
                Assert.InRange(wait, 1, 50);
                now += wait * 1_000_000L;
            }
        }

        for (int from = 0; from < passed.Count; from++)
        {
            UInt128 bytes = 0;
            for (int to = from; to < passed.Count; to++)
            {
                bytes += passed[to].Bytes;
                UInt128 time = (UInt128)(passed[to].At - passed[from].At);
                Assert.True(bytes * Second <= ((UInt128)burst * Second) + (rate * time) + Second, $"{bytes} bytes in {time} ns");
                Assert.True((UInt128)(to - from + 1) * Second <= (7 * (UInt128)Second) + (operations * time) + Second,
                    $"{to - from + 1} operations in {time} ns");
            }
        }

        return true;
    }

    [Fact]
    public void Waiting_as_told_reaches_the_rate()
    {
        RateLimiter limiter = RateLimiter.Create(new RateLimit(10_000_000, 0, BurstBytes: 4096), 0)!;
        long now = 0;
        ulong moved = 0;
        while (now < 10 * Second)
        {
            if (limiter.TryTake(512, now, out int wait))
            {
                moved += 512;
            }
            else
            {
                now += wait * 1_000_000L;
            }
        }

        // A millisecond is the grain of a wait: 4 KiB of burst fill in less, so it cannot be the whole rate.
        Assert.InRange(moved, 10UL * 3_500_000, (10UL * 10_000_000) + 4096);
    }

    [Fact]
    public void A_limited_path_allocates_nothing()
    {
        RateLimiter limiter = RateLimiter.Create(new RateLimit(1000, 1000), 0)!;
        limiter.TryTake(1, 1, out _);
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 10_000; i++)
        {
            limiter.TryTake((ulong)i, i * 1000L, out _);
            limiter.IsReady(i * 1000L, out _);
        }

        Assert.Equal(before, GC.GetAllocatedBytesForCurrentThread());
    }
}
