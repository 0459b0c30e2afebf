using Vmm.Memory;

namespace Vmm.Devices.Virtio.Vsock;

/// <summary>Serves receive queue (0, host to guest) and transmit queue (1) of one activation of a socket device (virtio 1.2 section 5.10.2).</summary>
internal sealed class VsockQueues(VirtioActivation activation, VsockSwitch packets, SocketHost host) : IQueueService
{
    // One packet at a time goes through each: header and data, copied once from or to the guest.
    private readonly byte[] _taken = new byte[VsockHeader.Bytes + VsockSwitch.MaxData];
    private readonly byte[] _given = new byte[VsockHeader.Bytes + VsockSwitch.MaxData];
    private int _receiveHead = -1;
    private bool _started;

    public QueueProgress Serve(QueueThread thread)
    {
        if (!_started)
        {
            _started = true;
            host.Start(thread, packets);
        }

        bool again = false;
        Virtqueue? transmit = activation.Queues[1]?.Queue, receive = activation.Queues[0]?.Queue;
        if (transmit is not null && !Take(thread, transmit))
        {
            return QueueProgress.Broken;
        }

        if (receive is not null)
        {
            if (!Give(thread, receive))
            {
                return QueueProgress.Broken;
            }

            if (packets.HasWork)
            {
                again = receive.EnableNotifications();
            }
            else
            {
                receive.DisableNotifications();
            }
        }

        // While too many answers wait the guest's packets wait too; its next receive buffer wakes this thread.
        if (transmit is not null && packets.CanTake)
        {
            again |= transmit.EnableNotifications();
        }

        return again ? QueueProgress.Again : QueueProgress.Idle;
    }

    public void Ready(ulong tag, Interop.PollEvents events) => host.Ready(tag);

    public void Stopped()
    {
        packets.Reset();
        host.Stop();
    }

    private bool Take(QueueThread thread, Virtqueue queue)
    {
        bool sound = true;
        for (int budget = queue.Size; budget > 0 && sound && packets.CanTake && !thread.Stopping; budget--)
        {
            TakeResult taken = queue.TryTake(out ushort head);
            if (taken == TakeResult.Empty)
            {
                break;
            }

            sound = taken == TakeResult.Taken && queue.Walk(head).Gather(_taken, out int bytes) && Deliver(_taken.AsSpan(0, bytes));
            if (sound)
            {
                queue.Complete(head, 0);
            }
        }

        activation.Publish(1);
        return sound;
    }

    private bool Deliver(ReadOnlySpan<byte> packet)
    {
        if (packet.Length < VsockHeader.Bytes)
        {
            return false;
        }

        VsockHeader header = VsockHeader.Read(packet);
        ReadOnlySpan<byte> data = packet[VsockHeader.Bytes..];
        if (header.Operation == VsockOperation.Data && header.Length > data.Length)
        {
            header = header with { Operation = VsockOperation.Invalid }; // it announces more than it brings: ends its connection
        }

        packets.FromGuest(header, header.Operation == VsockOperation.Data ? data[..(int)header.Length] : []);
        return true;
    }

    private bool Give(QueueThread thread, Virtqueue queue)
    {
        bool sound = true;
        for (int budget = queue.Size; budget > 0 && packets.HasWork && !thread.Stopping; budget--)
        {
            if (_receiveHead < 0)
            {
                TakeResult taken = queue.TryTake(out ushort head);
                if (taken == TakeResult.Empty)
                {
                    break;
                }

                if (taken == TakeResult.Malformed)
                {
                    sound = false;
                    break;
                }

                _receiveHead = head;
            }

            int room = Room(queue.Walk((ushort)_receiveHead));
            if (room <= VsockHeader.Bytes)
            {
                sound = false; // no buffer for a packet at all
                break;
            }

            room = Math.Min(room, _given.Length) - VsockHeader.Bytes;
            if (!packets.TryNext(_given.AsSpan(VsockHeader.Bytes, room), out VsockHeader header))
            {
                break; // the chain waits for the next packet
            }

            header.Write(_given);
            int length = VsockHeader.Bytes + (int)header.Length;
            sound = Scatter(queue.Walk((ushort)_receiveHead), _given.AsSpan(0, length));
            if (!sound)
            {
                break;
            }

            queue.Complete((ushort)_receiveHead, (uint)length);
            _receiveHead = -1;
        }

        activation.Publish(0);
        return sound;
    }

    /// <summary>Writable bytes of a chain, at most one packet; -1 when it is malformed.</summary>
    private int Room(ChainWalker chain)
    {
        ulong room = 0;
        ChainStep step;
        while ((step = chain.MoveNext()) == ChainStep.Buffer)
        {
            room += chain.Current.Writable ? chain.Current.Length : 0;
        }

        return step == ChainStep.End ? (int)Math.Min(room, (ulong)_given.Length) : -1;
    }

    /// <summary>Writes a packet into a chain; false when the guest has changed the chain meanwhile.</summary>
    private bool Scatter(ChainWalker chain, ReadOnlySpan<byte> packet)
    {
        while (packet.Length > 0 && chain.MoveNext() == ChainStep.Buffer)
        {
            VirtioBuffer buffer = chain.Current;
            int length = (int)Math.Min(buffer.Length, (uint)packet.Length);
            if (buffer.Writable && activation.Memory.TryWrite(buffer.Address, packet[..length]))
            {
                packet = packet[length..];
            }
        }

        return packet.Length == 0;
    }
}
