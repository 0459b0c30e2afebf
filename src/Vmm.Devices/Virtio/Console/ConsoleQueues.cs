namespace Vmm.Devices.Virtio.Console;

/// <summary>
/// Serves receive queue (0, host to guest) and transmit queue (1) of one activation of a console (virtio 1.2 sections 5.3.2, 5.3.6).
/// </summary>
internal sealed class ConsoleQueues : IQueueService
{
    // Of one chain; longer output is a driver that no system has.
    private const uint MostOutput = uint.MaxValue;

    private readonly VirtioConsole _device;
    private readonly IConsoleSink _sink;
    private readonly RingPump? _receive, _transmit;
    private readonly byte[] _copy = new byte[4096];
    private QueueThread _thread = null!; // Started comes first

    internal ConsoleQueues(VirtioConsole device, VirtioActivation activation, IConsoleSink sink)
    {
        _device = device;
        _sink = sink;
        _receive = activation.Queues[0] is null ? null : new RingPump(activation, 0, new Receiver(this), 0, VirtioConsole.InputRoom);
        _transmit = activation.Queues[1] is null ? null : new RingPump(activation, 1, new Transmitter(this), MostOutput, 0);
    }

    private bool Stopping => _thread.Stopping;

    public void Started(QueueThread thread)
    {
        _thread = thread;
        _receive?.Wake = thread.Wake;
        _transmit?.Wake = thread.Wake;
    }

    public QueueProgress Serve()
    {
        if (_transmit?.Serve() == false || _receive?.Serve() == false)
        {
            return QueueProgress.Broken;
        }

        // Both, always: each asks for its own doorbell.
        bool again = (_transmit?.PrepareSleep() ?? false) | (_receive?.PrepareSleep() ?? false);
        return again ? QueueProgress.Again : QueueProgress.Idle;
    }

    public void Held()
    {
        _transmit?.GiveBack();
        _receive?.GiveBack();
    }

    private sealed class Transmitter(ConsoleQueues queues) : IChainHandler
    {
        public bool WantsChain => !queues.Stopping;

        /// <summary>Sends every readable byte of a chain, through a copy: the sink may be slow, and the guest writes meanwhile.</summary>
        public ChainResult Handle(RequestChain chain, out uint written)
        {
            written = 0;
            int count;
            for (ulong at = 0; !queues.Stopping && (count = chain.Read(at, queues._copy)) > 0; at += (uint)count)
            {
                queues._sink.Write(queues._copy.AsSpan(0, count));
            }

            return ChainResult.Done;
        }
    }

    private sealed class Receiver(ConsoleQueues queues) : IChainHandler
    {
        // Without input the driver's buffers wait in the ring.
        public bool WantsChain => !queues.Stopping && queues._device.HasInput;

        public ChainResult Handle(RequestChain chain, out uint written)
        {
            written = 0;
            for (int i = 0; i < chain.WritablePieces; i++)
            {
                written += (uint)queues._device.TakeInput(chain.WritablePiece(i));
            }

            return ChainResult.Done;
        }
    }
}
