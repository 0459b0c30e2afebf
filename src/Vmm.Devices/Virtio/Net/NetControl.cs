using System.Buffers.Binary;
using Vmm.Memory;

namespace Vmm.Devices.Virtio.Net;

/// <summary>The control queue (virtio 1.2 section 5.1.6.5): number of queue pairs, offloads, receive modes. On the thread of the first pair.</summary>
internal sealed class NetControl(VirtioNet device, VirtioActivation activation, Virtqueue ring)
{
    private const byte ClassReceive = 0, ClassMac = 1, ClassMultiQueue = 4, ClassGuestOffloads = 5;
    private const byte TableSet = 0;
    private const byte Ok = 0, Error = 1;

    /// <summary>Carries out what is in the ring. False when the driver broke it.</summary>
    public bool Serve()
    {
        for (int budget = ring.Size; budget > 0; budget--)
        {
            TakeResult taken = ring.TryTake(out ushort head);
            if (taken == TakeResult.Empty)
            {
                return true;
            }

            if (taken == TakeResult.Malformed || !Answer(head))
            {
                return false;
            }
        }

        return true;
    }

    private bool Answer(ushort head)
    {
        Span<byte> command = stackalloc byte[16];
        ulong length = 0;
        GuestAddress? ack = null;
        ChainWalker walker = ring.Walk(head);
        ChainStep step;
        while ((step = walker.MoveNext()) == ChainStep.Buffer)
        {
            VirtioBuffer buffer = walker.Current;
            if (buffer.Writable)
            {
                ack ??= buffer.Address;
                continue;
            }

            // Only tables of addresses are longer, and of those the lengths are enough.
            int part = (int)Math.Min(buffer.Length, (ulong)command.Length - Math.Min(length, (ulong)command.Length));
            if (part > 0 && !activation.Memory.TryRead(buffer.Address, command.Slice((int)length, part)))
            {
                return false;
            }

            length += buffer.Length;
        }

        if (step == ChainStep.Malformed || length < 2 || ack is not { } at)
        {
            return false;
        }

        ReadOnlySpan<byte> data = command[2..(int)Math.Min(length, (ulong)command.Length)];
        bool done = command[0] == ClassMac ? command[1] == TableSet && SetTables(head, length) : Do(command[0], command[1], data);
        activation.Memory.TryWrite(at, done ? Ok : Error);
        ring.Complete(head, 1);
        return true;
    }

    private bool Do(byte group, byte command, ReadOnlySpan<byte> data) => group switch
    {
        // Promiscuous and all-multicast; the others are of CTRL_RX_EXTRA, which is not offered (5.1.6.5.1). Filters are best effort: a tap has one reader,
        // and what it sends is meant for the guest. Either mode is granted, neither filters.
        ClassReceive => Accepted(NetFeatures.ControlReceive) && command <= 1 && data.Length >= 1 && data[0] <= 1,
        ClassMultiQueue => command == 0 && data.Length >= 2 && Accepted(NetFeatures.MultiQueue)
            && device.SetActivePairs(BinaryPrimitives.ReadUInt16LittleEndian(data)),
        ClassGuestOffloads => command == 0 && data.Length >= 8 && SetOffloads(BinaryPrimitives.ReadUInt64LittleEndian(data)),
        _ => false,
    };

    private bool Accepted(ulong feature) => (activation.Features & feature) != 0;

    /// <summary>
    /// VIRTIO_NET_CTRL_MAC_TABLE_SET (5.1.6.5.2): a table of unicast and one of multicast addresses, each behind its number of entries. Well-formed ones are
    /// granted, as receive modes are, and nothing is filtered.
    /// </summary>
    private bool SetTables(ushort head, ulong length) =>
        Accepted(NetFeatures.ControlReceive)
        && TryReadCount(head, 2, out ulong unicast) && TryReadCount(head, 6 + unicast, out ulong multicast) && length == 10 + unicast + multicast;

    /// <summary>Bytes of a table whose number of entries lies at an offset of the command, in any pieces.</summary>
    private bool TryReadCount(ushort head, ulong offset, out ulong bytes)
    {
        Span<byte> count = stackalloc byte[4];
        int found = 0;
        ulong start = 0;
        for (ChainWalker walker = ring.Walk(head); found < count.Length && walker.MoveNext() == ChainStep.Buffer && !walker.Current.Writable;)
        {
            VirtioBuffer buffer = walker.Current;
            ulong skip = offset + (ulong)found - start;
            int part = skip < buffer.Length ? (int)Math.Min(buffer.Length - skip, (ulong)(count.Length - found)) : 0;
            if (part > 0 && !activation.Memory.TryRead(buffer.Address + skip, count.Slice(found, part)))
            {
                break;
            }

            found += part;
            start += buffer.Length;
        }

        bytes = 6UL * BinaryPrimitives.ReadUInt32LittleEndian(count);
        return found == count.Length;
    }

    private bool SetOffloads(ulong wanted) =>
        Accepted(NetFeatures.ControlGuestOffloads) && (wanted & ~(activation.Features & NetFeatures.GuestOffloads)) == 0
        && device.Backend.SetOffloads(NetFeatures.Offloads(wanted));
}
