using System.Buffers.Binary;
using Vmm.Memory;

namespace Vmm.Devices.Virtio.Mem;

/// <summary>Kinds of requests, virtio 1.2 section 5.15.6.</summary>
internal enum MemRequestKind : ushort
{
    Plug = 0,
    Unplug = 1,
    UnplugAll = 2,
    State = 3,
}

/// <summary>One request: 24 bytes, of which the kind, an address and a number of blocks count.</summary>
internal readonly record struct MemRequest(MemRequestKind Kind, ulong Address, ushort Blocks)
{
    internal const int Bytes = 24;

    internal static MemRequest Parse(ReadOnlySpan<byte> bytes) => new(
        (MemRequestKind)BinaryPrimitives.ReadUInt16LittleEndian(bytes),
        BinaryPrimitives.ReadUInt64LittleEndian(bytes[8..]),
        BinaryPrimitives.ReadUInt16LittleEndian(bytes[16..]));
}

/// <summary>Serves the request queue of one activation, on its queue thread.</summary>
internal sealed class MemRequests(VirtioMem device, VirtioActivation activation) : IQueueService
{
    private const int AnswerBytes = 10;

    public QueueProgress Serve(QueueThread thread)
    {
        if (activation.Queues[0] is not { } active)
        {
            return QueueProgress.Idle;
        }

        for (int budget = active.Queue.Size; budget > 0 && !thread.Stopping; budget--)
        {
            TakeResult taken = active.Queue.TryTake(out ushort head);
            if (taken == TakeResult.Empty)
            {
                break;
            }

            if (taken != TakeResult.Taken || !Answer(active.Queue.Walk(head), out uint written))
            {
                return QueueProgress.Broken;
            }

            active.Queue.Complete(head, written);
            activation.Publish(0); // the driver waits for each answer before it asks again
        }

        return active.Queue.EnableNotifications() ? QueueProgress.Again : QueueProgress.Idle;
    }

    /// <summary>False when the chain is malformed: less than 24 bytes to read, or no room for the answer behind them, each in any pieces (2.7.4.1).</summary>
    private bool Answer(ChainWalker chain, out uint written)
    {
        written = 0;
        Span<byte> bytes = stackalloc byte[MemRequest.Bytes];
        bytes.Clear();
        Span<VirtioBuffer> room = stackalloc VirtioBuffer[AnswerBytes];
        int length = 0, pieces = 0, found = 0;
        ChainStep step;
        while ((step = chain.MoveNext()) == ChainStep.Buffer)
        {
            if (chain.Current.Writable)
            {
                int take = (int)Math.Min(chain.Current.Length, (uint)(AnswerBytes - found));
                if (take > 0)
                {
                    room[pieces++] = chain.Current with { Length = (uint)take };
                    found += take;
                }
            }
            else
            {
                int take = (int)Math.Min(chain.Current.Length, (uint)(MemRequest.Bytes - length));
                if (take > 0 && !activation.Memory.TryRead(chain.Current.Address, bytes.Slice(length, take)))
                {
                    return false;
                }

                length += take;
            }
        }

        if (step != ChainStep.End || length < MemRequest.Bytes || found < AnswerBytes)
        {
            return false;
        }

        MemAnswer result = device.Do(MemRequest.Parse(bytes), out MemRangeState state);
        Span<byte> reply = stackalloc byte[AnswerBytes];
        reply.Clear();
        BinaryPrimitives.WriteUInt16LittleEndian(reply, (ushort)result);
        BinaryPrimitives.WriteUInt16LittleEndian(reply[8..], (ushort)state);
        written = Scatter(reply, room[..pieces]);
        return true;
    }

    /// <summary>Writes the answer; the number of bytes from its start that are there.</summary>
    private uint Scatter(ReadOnlySpan<byte> reply, ReadOnlySpan<VirtioBuffer> room)
    {
        uint written = 0;
        foreach (VirtioBuffer piece in room)
        {
            // The request may have unplugged what its own answer lies in: then there is nowhere to write it, and nobody who could read it.
            if (!activation.Memory.TryWrite(piece.Address, reply.Slice((int)written, (int)piece.Length)))
            {
                break;
            }

            written += piece.Length;
        }

        return written;
    }
}
