using System.Diagnostics;
using System.Numerics;

namespace Vmm.Storage;

/// <summary>
/// How long something took, counted in buckets whose bounds are powers of two of a microsecond: bucket 0 is below 1 µs, bucket n from
/// 2^(n-1) to below 2^n µs, the last one everything above. One thread adds, without a locked operation; any thread reads.
/// </summary>
public sealed class LatencyHistogram
{
    /// <summary>Number of buckets: the last one begins at 2^30 µs, 18 minutes.</summary>
    public const int Buckets = 32;

    private const ulong TicksPerMicrosecond = 1000; // the stopwatch of Linux counts nanoseconds; a constant, so that nothing is divided

    private readonly long[] _counts = new long[Buckets];
    private long _ticks;

    /// <summary>All of it together, microseconds.</summary>
    public long Microseconds => Volatile.Read(ref _ticks) / (long)TicksPerMicrosecond;

    /// <summary>Counts in one bucket.</summary>
    public long this[int bucket] => Volatile.Read(ref _counts[bucket]);

    /// <summary>Adds what took so many ticks of <see cref="Stopwatch"/>.</summary>
    internal void Add(long ticks)
    {
        ulong microseconds = (ulong)Math.Max(ticks, 0) / TicksPerMicrosecond;
        int bucket = Math.Min(64 - BitOperations.LeadingZeroCount(microseconds), Buckets - 1);
        Volatile.Write(ref _counts[bucket], _counts[bucket] + 1);
        Volatile.Write(ref _ticks, _ticks + Math.Max(ticks, 0));
    }

    /// <summary>Adds what took no time at all: most requests do not wait.</summary>
    internal void AddNothing()
    {
        Debug.Assert(Stopwatch.Frequency == 1000 * 1_000_000, "the unit of ticks");
        Volatile.Write(ref _counts[0], _counts[0] + 1);
    }
}

/// <summary>How long requests were at each stage of a router: held before it, and with storage behind it.</summary>
public sealed class StageLatencies
{
    /// <summary>From the submission, or from a fault for which a request was kept, until it went on.</summary>
    public LatencyHistogram Wait { get; } = new();

    /// <summary>From there until storage was through with it.</summary>
    public LatencyHistogram Storage { get; } = new();
}
