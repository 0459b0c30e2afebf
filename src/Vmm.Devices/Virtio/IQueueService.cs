using Vmm.Interop;

namespace Vmm.Devices.Virtio;

/// <summary>Answer of <see cref="IQueueService.Serve"/>.</summary>
internal enum QueueProgress
{
    /// <summary>
    /// Everything that could be done is done: sleep until a doorbell, a watched descriptor or <see cref="QueueThread.Wake"/>.
    /// </summary>
    Idle,

    /// <summary>More arrived meanwhile: call again before sleeping.</summary>
    Again,

    /// <summary>The driver broke a ring or a chain: NEEDS_RESET, and nothing more until the driver resets the device.</summary>
    Broken,
}

/// <summary>What a device does on its queue thread. Every call comes from that thread.</summary>
internal interface IQueueService
{
    /// <summary>What its thread's ring (io_uring) is for.</summary>
    RingOperations Operations => RingOperations.Polls;

    /// <summary>The thread begins; <see cref="Serve"/> follows.</summary>
    void Started(QueueThread thread);

    /// <summary>
    /// Takes what is in the rings and gives back what is done. Before it answers <see cref="QueueProgress.Idle"/> it has asked for the
    /// doorbells it waits for (<see cref="RingPump.PrepareSleep"/>). Long work looks at <see cref="QueueThread.Stopping"/>.
    /// </summary>
    QueueProgress Serve();

    /// <summary>
    /// A descriptor watched by <see cref="QueueThread.Watch"/> has events; the watch is over. <see cref="Serve"/> follows.
    /// </summary>
    void Ready(ulong tag, PollEvents events) { }

    /// <summary>
    /// The device is held: <see cref="Serve"/> is not called until it goes on. What was taken and is not complete goes back into the rings,
    /// or lies in a field of the device.
    /// </summary>
    void Held() { }

    /// <summary>The thread ends: after a reset, a broken ring or a failure. Guest memory is not touched any more.</summary>
    void Stopped() { }
}
