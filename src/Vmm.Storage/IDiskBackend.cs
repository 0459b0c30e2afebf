using Vmm.Interop;

namespace Vmm.Storage;

/// <summary>What a disk can do beyond read, write and flush.</summary>
[Flags]
public enum DiskAbilities
{
    /// <summary>Nothing more.</summary>
    None = 0,

    /// <summary>Takes <see cref="IDiskQueue.Discard"/>.</summary>
    Discard = 1,

    /// <summary>Takes <see cref="IDiskQueue.WriteZeroes"/>.</summary>
    WriteZeroes = 2,
}

/// <summary>How a disk request ended.</summary>
public enum DiskStatus
{
    /// <summary>Done, in full.</summary>
    Ok,

    /// <summary>The host failed; for reads the buffers' content is undefined.</summary>
    IoError,

    /// <summary>The host's file system is full.</summary>
    NoSpace,

    /// <summary>The disk cannot do that.</summary>
    NotSupported,
}

/// <summary>One finished disk request.</summary>
/// <param name="Tag">What it was queued with.</param>
/// <param name="Status">How it ended.</param>
public readonly record struct DiskCompletion(ulong Tag, DiskStatus Status);

/// <summary>A disk's content. Thread-safe; I/O goes through queues. Dispose the queues first.</summary>
public interface IDiskBackend : IDisposable
{
    /// <summary>Size in bytes, a multiple of 512.</summary>
    ulong CapacityBytes { get; }

    /// <summary>Unit in which the disk is addressed best, in bytes (512 or more).</summary>
    int LogicalBlockSize { get; }

    /// <summary>Unit that is written without read-modify-write, in bytes.</summary>
    int PhysicalBlockSize { get; }

    /// <summary>Writes are refused.</summary>
    bool ReadOnly { get; }

    /// <summary>Optional requests it takes.</summary>
    DiskAbilities Abilities { get; }

    /// <summary>Makes a queue for up to <paramref name="depth"/> requests in flight. Call it on the thread that will own the queue.</summary>
    /// <exception cref="BlockException">The host has no resources for it.</exception>
    IDiskQueue CreateQueue(int depth);
}

/// <summary>
/// Requests in flight on a disk. Single-threaded: one I/O thread creates, uses and disposes it, and has at most <see cref="Depth"/> requests in flight.
/// The iovec array and its memory belong to the queue until the completion is reaped; the queue may change the array (to continue short transfers).
/// Ranges are checked by the caller; a range beyond the disk ends as <see cref="DiskStatus.IoError"/>. Nothing here allocates.
/// </summary>
public interface IDiskQueue : IDisposable
{
    /// <summary>Greatest number of requests in flight.</summary>
    int Depth { get; }

    /// <summary>Requests queued and not reaped yet.</summary>
    int InFlight { get; }

    /// <summary>Queues a read of <paramref name="length"/> bytes (the sum of the vectors) at byte <paramref name="offset"/>.</summary>
    void Read(ulong tag, ulong offset, nint iovecs, int count, uint length);

    /// <summary>Queues a write of <paramref name="length"/> bytes at byte <paramref name="offset"/>.</summary>
    void Write(ulong tag, ulong offset, nint iovecs, int count, uint length);

    /// <summary>Queues: everything that completed before now is on stable storage when this completes.</summary>
    void Flush(ulong tag);

    /// <summary>Queues: the range's content is no longer needed (a hint).</summary>
    void Discard(ulong tag, ulong offset, ulong length);

    /// <summary>Queues: the range reads as zeros; <paramref name="mayUnmap"/> allows its space to be given back.</summary>
    void WriteZeroes(ulong tag, ulong offset, ulong length, bool mayUnmap);

    /// <summary>True when <see cref="WriteZeroes"/> would write its zeros as data, as far as is known: it costs what a write of its length costs.</summary>
    bool WritesZeroesAsData(bool mayUnmap);

    /// <summary>Starts everything queued.</summary>
    void Submit();

    /// <summary>Takes finished requests without sleeping; the number taken.</summary>
    int Reap(Span<DiskCompletion> completions);

    /// <summary>Lets <see cref="Wait"/> also end when <paramref name="doorbell"/> is signalled. Never undone.</summary>
    void Watch(EventFd doorbell);

    /// <summary>Submits, then sleeps until a completion can be reaped or a watched doorbell was signalled (the caller takes it); may also return for no reason.</summary>
    void Wait();
    /// <summary>
    /// Submits, then sleeps until a completion can be reaped, whatever the doorbells do; may also return for no reason. For a queue that is being drained:
    /// doorbells that nobody takes any more would end every <see cref="Wait"/> at once.
    /// </summary>
    void WaitForCompletion();
}
