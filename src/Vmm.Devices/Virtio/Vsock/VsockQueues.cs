using Vmm.Interop;

namespace Vmm.Devices.Virtio.Vsock;

/// <summary>
/// Serves receive queue (0, host to guest) and transmit queue (1) of one activation of a socket device (virtio 1.2 section 5.10.2).
/// </summary>
internal sealed class VsockQueues : IQueueService
{
    private const int EventQueue = 2;
    private const int MostBytes = VsockHeader.Bytes + VsockSwitch.MaxData;

    private readonly VsockSwitch _packets;
    private readonly SocketHost _host;
    private readonly RingPump? _receive, _transmit;
    private readonly RingPump? _events; // only where there is something to tell
    private readonly byte[] _packet = new byte[MostBytes]; // one at a time: header and data, copied once from or to the guest
    private QueueThread _thread = null!; // Started comes first

    /// <param name="activation">The queues.</param>
    /// <param name="packets">The connections.</param>
    /// <param name="host">Their ends at the host.</param>
    /// <param name="announceReset">The guest may have connections of an earlier host, which are gone: it is told (5.10.6.7).</param>
    internal VsockQueues(VirtioActivation activation, VsockSwitch packets, SocketHost host, bool announceReset)
    {
        if (announceReset && activation.Queues[EventQueue] is not null)
        {
            _events = new RingPump(activation, EventQueue, new ResetNotice(this), 0, ResetNotice.Bytes);
        }

        _packets = packets;
        _host = host;
        _receive = activation.Queues[0] is null ? null : new RingPump(activation, 0, new Receiver(this), 0, MostBytes);
        _transmit = activation.Queues[1] is null ? null : new RingPump(activation, 1, new Transmitter(this), MostBytes, 0);
    }

    private bool Stopping => _thread.Stopping;

    /// <inheritdoc/>
    public void Started(QueueThread thread)
    {
        _thread = thread;
        _receive?.Wake = thread.Wake;
        _transmit?.Wake = thread.Wake;
        _events?.Wake = thread.Wake;
        _host.Start(thread, _packets);
    }

    /// <inheritdoc/>
    public QueueProgress Serve()
    {
        if (_events?.Serve() == false || _transmit?.Serve() == false || _receive?.Serve() == false)
        {
            return QueueProgress.Broken;
        }

        // While too many answers wait the guest's packets wait too; its next receive buffer wakes this thread.
        bool again = (_receive?.PrepareSleep() ?? false) | (_transmit?.PrepareSleep() ?? false) | (_events?.PrepareSleep() ?? false);
        return again ? QueueProgress.Again : QueueProgress.Idle;
    }

    /// <inheritdoc/>
    public void Ready(ulong tag, PollEvents events) => _host.Ready(tag);

    /// <inheritdoc/>
    public void Held()
    {
        _transmit?.GiveBack();
        _receive?.GiveBack();
        _events?.GiveBack();
    }

    /// <inheritdoc/>
    public void Stopped()
    {
        _packets.Reset();
        _host.Stop();
    }

    private sealed class Transmitter(VsockQueues queues) : IChainHandler
    {
        public bool WantsChain => queues._packets.CanTake && !queues.Stopping;

        public ChainResult Handle(RequestChain chain, out uint written)
        {
            written = 0;
            ReadOnlySpan<byte> packet = queues._packet.AsSpan(0, chain.Read(0, queues._packet));
            if (packet.Length < VsockHeader.Bytes)
            {
                return ChainResult.Malformed;
            }

            VsockHeader header = VsockHeader.Read(packet);
            ReadOnlySpan<byte> data = packet[VsockHeader.Bytes..];
            if (header.Operation == VsockOperation.Data && header.Length > data.Length)
            {
                header = header with { Operation = VsockOperation.Invalid }; // it announces more than it brings: ends its connection
            }

            queues._packets.FromGuest(header, header.Operation == VsockOperation.Data ? data[..(int)header.Length] : []);
            return ChainResult.Done;
        }
    }

    /// <summary>One event, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET: struct virtio_vsock_event with the id 0.</summary>
    private sealed class ResetNotice(VsockQueues queues) : IChainHandler
    {
        internal const int Bytes = 4;
        private bool _told;

        public bool WantsChain => !_told && !queues.Stopping;

        public ChainResult Handle(RequestChain chain, out uint written)
        {
            written = Bytes;
            if (chain.WritableBytes < Bytes)
            {
                return ChainResult.Malformed;
            }

            chain.Write(0, [0, 0, 0, 0]);
            _told = true;
            return ChainResult.Done;
        }
    }

    private sealed class Receiver(VsockQueues queues) : IChainHandler
    {
        public bool WantsChain => queues._packets.HasWork && !queues.Stopping;

        public ChainResult Handle(RequestChain chain, out uint written)
        {
            written = 0;
            int room = (int)Math.Min(chain.WritableBytes, MostBytes) - VsockHeader.Bytes;
            if (room <= 0)
            {
                return ChainResult.Malformed; // no buffer for a packet at all
            }

            Span<byte> packet = queues._packet;
            if (!queues._packets.TryNext(packet.Slice(VsockHeader.Bytes, room), out VsockHeader header))
            {
                return ChainResult.PutBack; // the chain waits for the next packet
            }

            header.Write(packet);
            written = VsockHeader.Bytes + header.Length;
            chain.Write(0, packet[..(int)written]);
            return ChainResult.Done;
        }
    }
}
