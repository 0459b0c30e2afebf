using Vmm.Interop;

namespace Vmm.Devices.Virtio.Net;

/// <summary>
/// The host's side of a network device. <see cref="SetOffloads"/> and <see cref="SetActiveQueues"/> come from one thread at a time.
/// </summary>
public interface INetBackend : IDisposable
{
    /// <summary>Number of queues; each has one I/O thread.</summary>
    int QueueCount { get; }

    /// <summary>The network interface of the host that it is; null: it is none.</summary>
    string? Interface => null;

    /// <summary>What it can hand to the guest unfinished, and takes unfinished from it.</summary>
    TapOffloads Offloads { get; }

    /// <summary>What an I/O thread asks of the kernel for its queues.</summary>
    SyscallNeeds ThreadNeeds => TapQueue.Needs;

    /// <summary>Called, on any thread, when a queue that ended may have come back (<see cref="INetQueue.TryReturn"/>).</summary>
    Action? Returning
    {
        get => null;
        set => _ = value;
    }

    /// <summary>One queue.</summary>
    INetQueue Queue(int index);

    /// <summary>The same queue for the host's kernel to serve; null: it cannot.</summary>
    IKernelPair? KernelPair(int index) => null;

    /// <summary>Says what the guest takes unfinished; false when it is refused (then nothing changed).</summary>
    bool SetOffloads(TapOffloads offloads);

    /// <summary>Frames for the guest go to the first <paramref name="count"/> queues only.</summary>
    void SetActiveQueues(int count);
}

/// <summary>
/// One queue of whole frames behind a header of <see cref="TapQueue.HeaderLength"/> bytes. One I/O thread; nothing blocks or allocates.
/// </summary>
public interface INetQueue
{
    /// <summary>For poll(2): readable when a frame is there, writable when one can be sent.</summary>
    FileDescriptorHandle Handle { get; }

    /// <summary>
    /// Reads frames, one into each iovec, until there is none, all were read, or one was longer than its <see cref="TapFrame.Room"/>.
    /// </summary>
    /// <returns>
    /// How many were read. What ended it before all were read, unless the last one was too long, is the result of the next: -EAGAIN when
    /// none is there, -EBADFD when there will never be one again, any other -errno when one was lost.
    /// </returns>
    int Read(Span<TapFrame> frames);

    /// <summary>Writes frames until all are written or there is no room now; one that is refused has an -errno for its result.</summary>
    /// <returns>How many were taken or refused.</returns>
    int Write(Span<TapFrame> frames);

    /// <summary>Part of a frame that was taken waits for room: <see cref="Flush"/> is to be called when there is some.</summary>
    bool HasUnsent => false;

    /// <summary>Sends what waits, as far as there is room.</summary>
    void Flush() { }

    /// <summary>The far side had ended, and there is a new one: frames come and go again from now on.</summary>
    bool TryReturn() => false;
}
