namespace Vmm.Storage.Tests.Crash;

/// <summary>Random requests on a few places of a disk, by several queues at once.</summary>
/// <param name="Seed">Of everything that is random. With one queue the same seed does the same again.</param>
/// <param name="Queues">Queues, each with a thread, a loop and a node of its own.</param>
/// <param name="Requests">Requests of each queue.</param>
internal sealed record Workload(int Seed, int Queues, int Requests)
{
    /// <summary>Requests in flight of each queue.</summary>
    public const int Depth = 4;

    /// <summary>Longest read or write in bytes.</summary>
    public const int LongestTransfer = 512 * 1024;

    /// <summary>Where requests go, as byte ranges.</summary>
    public required IReadOnlyList<(ulong From, ulong To)> Places { get; init; }

    /// <summary>A request that fails is no fault of the engine: the file fails.</summary>
    public bool MayFail { get; init; }

    /// <summary>Places with the borders of clusters and tables in them: the beginning, the end, and what lies around them.</summary>
    public static IReadOnlyList<(ulong From, ulong To)> PlacesOf(ulong diskSize, ulong clusterSize)
    {
        ulong width = Math.Clamp(6 * clusterSize, 256 << 10, 6 << 20);
        if (diskSize <= 4 * width)
        {
            return [(0, diskSize)];
        }

        ulong middle = diskSize / 2 / clusterSize * clusterSize;
        ulong table = Math.Min(clusterSize * clusterSize / 8, middle / 2 / clusterSize * clusterSize); // what one L2 table maps
        (ulong, ulong)[] places =
        [
            (0, width), (middle, middle + (width / 2)), (diskSize - (width / 2), diskSize),
            (Math.Max(table, 3 * width / 2) - (width / 2), Math.Max(table, 3 * width / 2) + (width / 2)),
        ];
        return [.. places.OrderBy(p => p.Item1)];
    }

    /// <summary>
    /// Runs it on an open disk and closes the nodes. What failed: the first wrong answer, or a failed request where none may fail.
    /// </summary>
    /// <param name="disk">The disk.</param>
    /// <param name="model">What it has to hold.</param>
    /// <param name="closed">False when the end of a node told that what was written last may be lost.</param>
    public string? Run(IDiskBackend disk, DiskModel model, out bool closed)
    {
        closed = false;
        QueueWorker[] workers = [.. Enumerable.Range(0, Queues).Select(q => new QueueWorker(this, q, disk, model))];
        Thread[] threads = [.. workers.Select((w, q) => new Thread(w.Run) { Name = $"queue {q}", IsBackground = true })];
        foreach (Thread thread in threads)
        {
            thread.Start();
        }

        foreach (Thread thread in threads)
        {
            if (!thread.Join(TimeSpan.FromSeconds(60)))
            {
                return $"hangs: {string.Join("; ", workers.Select(w => w.Describe()))}";
            }
        }

        closed = workers.All(w => w.IsClosed);
        if (closed)
        {
            model.FlushEnded(model.FlushBegins());
        }

        return workers.Select(w => w.Wrong).FirstOrDefault(w => w is not null);
    }
}
