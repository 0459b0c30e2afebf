using Vmm.Storage;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// What a disk has done since the device was made, and what it does now. I/O threads add, each for its queues; any thread reads. Each
/// number is exact, together they are not one moment.
/// </summary>
public sealed class BlkCounters
{
    private readonly BlkQueueCounters[] _queues;

    internal BlkCounters(int queues) => _queues = [.. Enumerable.Range(0, queues).Select(_ => new BlkQueueCounters())];

    /// <summary>Finished reads.</summary>
    public long Reads => _queues.Sum(queue => Volatile.Read(ref queue.Reads));

    /// <summary>Bytes of finished reads.</summary>
    public long ReadBytes => _queues.Sum(queue => Volatile.Read(ref queue.ReadBytes));

    /// <summary>Finished writes.</summary>
    public long Writes => _queues.Sum(queue => Volatile.Read(ref queue.Writes));

    /// <summary>Bytes of finished writes.</summary>
    public long WrittenBytes => _queues.Sum(queue => Volatile.Read(ref queue.WrittenBytes));

    /// <summary>Finished flushes.</summary>
    public long Flushes => _queues.Sum(queue => Volatile.Read(ref queue.Flushes));

    /// <summary>Requests answered with an error, malformed ones included.</summary>
    public long Errors => _queues.Sum(queue => Volatile.Read(ref queue.Errors));

    /// <summary>Requests that storage works on now.</summary>
    public int InFlight => _queues.Sum(queue => queue.Router?.Load.InFlight ?? 0);

    /// <summary>Requests that are held back now, e.g. by a rate limit.</summary>
    public int Held => _queues.Sum(queue => queue.Router?.Load.Held ?? 0);

    /// <summary>How long requests were held before they went to storage: counts by bucket of <see cref="LatencyHistogram"/>.</summary>
    public DiskLatency Wait => Sum(stages => stages.Wait);

    /// <summary>How long storage took for them.</summary>
    public DiskLatency Storage => Sum(stages => stages.Storage);

    private DiskLatency Sum(Func<StageLatencies, LatencyHistogram> stage)
    {
        long[] counts = new long[LatencyHistogram.Buckets];
        long microseconds = 0;
        foreach (BlkQueueCounters queue in _queues)
        {
            LatencyHistogram histogram = stage(queue.Latencies);
            microseconds += histogram.Microseconds;
            for (int i = 0; i < counts.Length; i++)
            {
                counts[i] += histogram[i];
            }
        }

        return new DiskLatency(counts, microseconds);
    }

    internal BlkQueueCounters this[int queue] => _queues[queue];
}

/// <summary>How long requests of a disk took at one stage.</summary>
/// <param name="Counts">Requests by bucket: below 1 µs, below 2, below 4, …; the last one is without end.</param>
/// <param name="Microseconds">All of them together.</param>
public readonly record struct DiskLatency(IReadOnlyList<long> Counts, long Microseconds);

/// <summary>
/// The part of one queue: one thread at a time adds, so that no number needs a locked operation. It outlives activations.
/// </summary>
internal sealed class BlkQueueCounters
{
    internal long Reads, ReadBytes, Writes, WrittenBytes, Flushes, Errors;

    private volatile RequestRouter? _router;

    internal StageLatencies Latencies { get; } = new();

    /// <summary>What the queue's requests go through now; null while it is not served.</summary>
    internal RequestRouter? Router
    {
        get => _router;
        set => _router = value;
    }

    internal void Count(in BlkRequest request, BlkStatus status)
    {
        if (status != BlkStatus.Ok)
        {
            Add(ref Errors, 1);
            return;
        }

        switch (request.Type)
        {
            case BlkType.In:
                Add(ref Reads, 1);
                Add(ref ReadBytes, (long)request.WritableBytes);
                break;
            case BlkType.Out:
                Add(ref Writes, 1);
                Add(ref WrittenBytes, (long)request.ReadableBytes);
                break;
            case BlkType.Flush:
                Add(ref Flushes, 1);
                break;
            default:
                break;
        }
    }

    private static void Add(ref long counter, long what) => Volatile.Write(ref counter, counter + what);
}
