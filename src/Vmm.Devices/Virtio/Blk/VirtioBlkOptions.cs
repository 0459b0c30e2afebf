namespace Vmm.Devices.Virtio.Blk;

/// <summary>How a block device is presented and served.</summary>
public sealed record VirtioBlkOptions
{
    /// <summary>Smallest queue: a request is a header, data and a status, so that 2 descriptors carry no data.</summary>
    public const int MinQueueSize = 4;

    /// <summary>Largest queue.</summary>
    public const int MaxQueueSize = 1024;

    /// <summary>Most request queues.</summary>
    public const int MaxQueues = 64;

    /// <summary>Name for threads and messages, e.g. <c>disk0</c>.</summary>
    public string Name { get; init; } = "disk";

    /// <summary>Serial the guest sees (GET_ID): up to 20 ASCII characters.</summary>
    public string Serial { get; init; } = "";

    /// <summary>Number of request queues, 1 to 64.</summary>
    public int QueueCount { get; init; } = 1;

    /// <summary>Size of each queue, a power of two from 4 to 1024.</summary>
    public int QueueSize { get; init; } = 256;

    /// <summary>Bytes of a logical block, 512 or 4096; null is the storage's own.</summary>
    public int? LogicalBlockSize { get; init; }

    /// <summary>Faults of the host for which the disk waits instead of failing the driver's request.</summary>
    public DiskWaits Waits { get; init; }

    /// <summary>Number of I/O threads; queues are dealt out to them in turn.</summary>
    public int IoThreads { get; init; } = 1;

    /// <summary>Longest busy poll before an I/O thread sleeps, in microseconds; 0 switches polling off.</summary>
    public int PollMicroseconds { get; init; } = 50;

    /// <summary>Throws when a value is out of range.</summary>
    /// <exception cref="ArgumentException">The message names the option.</exception>
    public void Validate()
    {
        Require(QueueCount is >= 1 and <= MaxQueues, nameof(QueueCount), "QueueCount must be 1 to 64");
        Require(QueueSize is >= MinQueueSize and <= MaxQueueSize && (QueueSize & (QueueSize - 1)) == 0, nameof(QueueSize),
            "QueueSize must be a power of two from 4 to 1024");
        Require(IoThreads is >= 1 and <= 64, nameof(IoThreads), "IoThreads must be 1 to 64");
        Require(LogicalBlockSize is null or 512 or 4096, nameof(LogicalBlockSize), "LogicalBlockSize must be 512 or 4096");
        Require(PollMicroseconds is >= 0 and <= 10_000, nameof(PollMicroseconds), "PollMicroseconds must be 0 to 10000");
        Require(Serial.Length <= 20 && Serial.All(char.IsAscii), nameof(Serial), "Serial must be up to 20 ASCII characters");
    }

    private static void Require(bool condition, string option, string message)
    {
        if (!condition)
        {
#pragma warning disable MA0015 // The parameter at fault is a property of this record.
            throw new ArgumentException("virtio-blk: " + message, option);
#pragma warning restore MA0015
        }
    }
}
