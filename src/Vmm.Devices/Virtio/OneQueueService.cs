using Vmm.Interop;

namespace Vmm.Devices.Virtio;

/// <summary>What a device with one queue does on its thread: everything but what its chains mean.</summary>
internal abstract class OneQueueService : IQueueService, IChainHandler
{
    /// <summary>Makes the service of queue 0, which is enabled.</summary>
    /// <param name="activation">Where the queue is of.</param>
    /// <param name="mostReadable">Readable bytes of a chain that are looked at.</param>
    /// <param name="mostWritable">Writable bytes of a chain that are filled at most.</param>
    /// <param name="publishEach">Each chain is shown to the driver at once.</param>
    private protected OneQueueService(VirtioActivation activation, uint mostReadable, uint mostWritable, bool publishEach = false) =>
        Pump = new RingPump(activation, 0, this, mostReadable, mostWritable, publishEach);

    /// <inheritdoc/>
    public virtual RingOperations Operations => RingOperations.Polls;

    /// <inheritdoc/>
    public bool WantsChain => !Thread.Stopping;

    /// <summary>Serves the queue.</summary>
    protected RingPump Pump { get; }

    /// <summary>The thread that serves it.</summary>
    protected QueueThread Thread { get; private set; } = null!; // Started comes first

    /// <inheritdoc/>
    public void Started(QueueThread thread)
    {
        Thread = thread;
        Pump.Wake = thread.Wake;
    }

    /// <inheritdoc/>
    public QueueProgress Serve() =>
        !Pump.Serve() ? QueueProgress.Broken : Pump.PrepareSleep() ? QueueProgress.Again : QueueProgress.Idle;

    /// <inheritdoc/>
    public void Held() => Pump.GiveBack();

    /// <inheritdoc/>
    public abstract ChainResult Handle(RequestChain chain, out uint written);
}
