namespace Vmm.Devices.Virtio.Console;

/// <summary>Serves receive queue (0, host to guest) and transmit queue (1) of one activation of a console (virtio 1.2 sections 5.3.2, 5.3.6).</summary>
internal sealed class ConsoleQueues(VirtioConsole device, VirtioActivation activation, IConsoleSink sink) : IQueueService
{
    private readonly byte[] _copy = new byte[4096];

    public QueueProgress Serve(QueueThread thread)
    {
        bool again = false;
        if (activation.Queues[1] is { } transmit)
        {
            if (!Transmit(thread, transmit.Queue))
            {
                return QueueProgress.Broken;
            }

            again = transmit.Queue.EnableNotifications();
        }

        if (activation.Queues[0] is { } receive)
        {
            if (!Receive(thread, receive.Queue))
            {
                return QueueProgress.Broken;
            }

            // Without input the driver's buffers wait in the ring and nobody needs to be told of more.
            if (device.HasInput)
            {
                again |= receive.Queue.EnableNotifications();
            }
            else
            {
                receive.Queue.DisableNotifications();
            }
        }

        return again ? QueueProgress.Again : QueueProgress.Idle;
    }

    private bool Transmit(QueueThread thread, Virtqueue queue)
    {
        bool sound = true;
        for (int budget = queue.Size; budget > 0 && sound && !thread.Stopping; budget--)
        {
            TakeResult taken = queue.TryTake(out ushort head);
            if (taken == TakeResult.Empty)
            {
                break;
            }

            sound = taken == TakeResult.Taken && Output(thread, queue.Walk(head));
            if (sound)
            {
                queue.Complete(head, 0);
            }
        }

        activation.Publish(1);
        return sound;
    }

    /// <summary>Sends every readable byte of a chain, through a copy: the sink may be slow, and the guest writes meanwhile.</summary>
    private bool Output(QueueThread thread, ChainWalker chain)
    {
        ChainStep step;
        while ((step = chain.MoveNext()) == ChainStep.Buffer)
        {
            VirtioBuffer buffer = chain.Current;
            for (ulong at = 0; at < buffer.Length && !buffer.Writable && !thread.Stopping; at += (uint)_copy.Length)
            {
                Span<byte> piece = _copy.AsSpan(0, (int)Math.Min((ulong)_copy.Length, buffer.Length - at));
                if (activation.Memory.TryRead(buffer.Address + at, piece))
                {
                    sink.Write(piece);
                }
            }
        }

        return step == ChainStep.End;
    }

    private bool Receive(QueueThread thread, Virtqueue queue)
    {
        bool sound = true;
        while (sound && device.HasInput && !thread.Stopping)
        {
            TakeResult taken = queue.TryTake(out ushort head);
            if (taken == TakeResult.Empty)
            {
                break;
            }

            uint written = 0;
            sound = taken == TakeResult.Taken && Input(queue.Walk(head), out written);
            if (sound)
            {
                queue.Complete(head, written);
            }
        }

        activation.Publish(0);
        return sound;
    }

    private bool Input(ChainWalker chain, out uint written)
    {
        written = 0;
        ChainStep step;
        while ((step = chain.MoveNext()) == ChainStep.Buffer)
        {
            VirtioBuffer buffer = chain.Current;
            int length = (int)Math.Min(buffer.Length, VirtioConsole.InputRoom);
            if (buffer.Writable && activation.Memory.TryGetSpan(buffer.Address, length, out Span<byte> span))
            {
                written += (uint)device.TakeInput(span);
            }
        }

        return step == ChainStep.End;
    }
}
