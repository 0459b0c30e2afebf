using Vmm.Interop;

namespace Vmm.Devices.Virtio.Serial;

/// <summary>
/// Serves one activation of a <see cref="VirtioSerial"/> (virtio 1.2 sections 5.3.2, 5.3.6): control queues 2 and 3, and 4 and 5 of the
/// named port. Those of port 0 are not touched: a port that was never added.
/// </summary>
internal sealed class SerialQueues : IQueueService
{
    private const int ControlReceive = 2, ControlTransmit = 3, Receive = 4, Transmit = 5;

    // Of one chain; longer output is a driver that no system has.
    private const uint MostOutput = uint.MaxValue;
    private const uint MostInput = 64 * 1024;

    private readonly VirtioSerial _device;
    private readonly SerialControl _control;
    private readonly RingPump?[] _pumps; // in the order in which they are served
    private readonly byte[] _copy = new byte[4096];
    private QueueThread _thread = null!; // Started comes first
    private PortStream? _stream;

    internal SerialQueues(VirtioSerial device, VirtioActivation activation, SerialControl control)
    {
        (_device, _control) = (device, control);
        _pumps =
        [
            // What was said before a port closed comes before its close.
            Pump(activation, Transmit, new Transmitter(this), MostOutput, 0),
            Pump(activation, ControlTransmit, new ControlTransmitter(this), SerialControl.HeaderBytes, 0),
            Pump(activation, ControlReceive, new ControlReceiver(this), 0, (uint)control.LongestMessage),
            Pump(activation, Receive, new Receiver(this), 0, MostInput),
        ];
    }

    private bool Stopping => _thread.Stopping;

    public void Started(QueueThread thread)
    {
        _thread = thread;
        foreach (RingPump? pump in _pumps)
        {
            pump?.Wake = thread.Wake;
        }
    }

    public QueueProgress Serve()
    {
        _stream = _device.Stream();
        foreach (RingPump? pump in _pumps)
        {
            if (pump?.Serve() == false)
            {
                return QueueProgress.Broken;
            }
        }

        bool again = false;
        foreach (RingPump? pump in _pumps)
        {
            again |= pump?.PrepareSleep() ?? false; // all of them: each asks for its own doorbell
        }

        return again ? QueueProgress.Again : QueueProgress.Idle;
    }

    public void Ready(ulong tag, PollEvents events)
    {
        if (_stream is not { } stream || tag >> 1 != stream.Id)
        {
            return; // of one that ended
        }

        if ((tag & 1) != 0)
        {
            stream.IsFull = false;
        }
        else
        {
            stream.IsEmpty = false;
        }
    }

    public void Held()
    {
        foreach (RingPump? pump in _pumps)
        {
            pump?.GiveBack();
        }
    }

    private static RingPump? Pump(VirtioActivation activation, int queue, IChainHandler handler, uint readable, uint writable) =>
        activation.Queues[queue] is null ? null : new RingPump(activation, queue, handler, readable, writable);

    private void WatchFull(PortStream stream)
    {
        stream.IsFull = true;
        _thread.Watch(stream.Socket, PollEvents.Writable, (stream.Id << 1) | 1);
    }

    private void WatchEmpty(PortStream stream)
    {
        stream.IsEmpty = true;
        _thread.Watch(stream.Socket, PollEvents.Readable, stream.Id << 1);
    }

    private void EndStream()
    {
        _device.EndStream();
        _stream = null;
    }

    /// <summary>What the guest's program says: goes to the stream, or nowhere.</summary>
    private sealed class Transmitter(SerialQueues queues) : IChainHandler
    {
        private ulong _done; // of the chain that was put back

        public bool WantsChain => !queues.Stopping && queues._stream is not { IsFull: true };

        public ChainResult Handle(RequestChain chain, out uint written)
        {
            written = 0;
            int count;
            while (queues._stream is { } stream && (count = chain.Read(_done, queues._copy)) > 0)
            {
                int sent = stream.Socket.Send(queues._copy.AsSpan(0, count));
                if (sent < 0)
                {
                    queues.EndStream();
                    break;
                }

                _done += (uint)sent;
                if (sent < count)
                {
                    queues.WatchFull(stream);
                    return ChainResult.PutBack; // taken up here when there is room
                }

                if (queues.Stopping)
                {
                    return ChainResult.PutBack;
                }
            }

            _done = 0;
            return ChainResult.Done;
        }
    }

    /// <summary>What the host says: last words of an earlier stream first, then what the stream brings.</summary>
    private sealed class Receiver(SerialQueues queues) : IChainHandler
    {
        public bool WantsChain => !queues.Stopping && (queues._device.OwesFarewell || queues._stream is { IsEmpty: false });

        public ChainResult Handle(RequestChain chain, out uint written)
        {
            written = 0;
            for (int i = 0; i < chain.WritablePieces; i++)
            {
                Span<byte> piece = chain.WritablePiece(i);
                int count = Fill(piece);
                written += (uint)count;
                if (count < piece.Length)
                {
                    break;
                }
            }

            return written > 0 || chain.WritableBytes == 0 ? ChainResult.Done : ChainResult.PutBack;
        }

        private int Fill(Span<byte> piece)
        {
            if (queues._device.OwesFarewell)
            {
                return queues._device.TakeFarewell(piece);
            }

            if (queues._stream is not { IsEmpty: false } stream || piece.Length == 0)
            {
                return 0;
            }

            int count = stream.Socket.Receive(piece);
            if (count == 0)
            {
                queues.EndStream();
                return queues._device.OwesFarewell ? queues._device.TakeFarewell(piece) : 0;
            }

            if (count < 0)
            {
                queues.WatchEmpty(stream);
            }

            return Math.Max(count, 0);
        }
    }

    private sealed class ControlTransmitter(SerialQueues queues) : IChainHandler
    {
        public bool WantsChain => !queues.Stopping;

        public ChainResult Handle(RequestChain chain, out uint written)
        {
            written = 0;
            Span<byte> message = queues._copy.AsSpan(0, SerialControl.HeaderBytes);
            if (chain.Read(0, message) < message.Length)
            {
                return ChainResult.Malformed;
            }

            lock (queues._device.ControlGate)
            {
                queues._control.Take(message);
            }

            queues._stream = queues._device.Stream(); // it ended, when the port did
            return ChainResult.Done;
        }
    }

    private sealed class ControlReceiver(SerialQueues queues) : IChainHandler
    {
        public bool WantsChain
        {
            get
            {
                lock (queues._device.ControlGate)
                {
                    return !queues.Stopping && queues._control.Owes;
                }
            }
        }

        public ChainResult Handle(RequestChain chain, out uint written)
        {
            lock (queues._device.ControlGate)
            {
                Span<byte> message = queues._copy.AsSpan(0, queues._control.LongestMessage);
                int length = queues._control.Next(message);
                written = (uint)length;
                if (chain.WritableBytes < written)
                {
                    return ChainResult.Malformed;
                }

                chain.Write(0, message[..length]);
                queues._control.Told();
                return ChainResult.Done;
            }
        }
    }
}
