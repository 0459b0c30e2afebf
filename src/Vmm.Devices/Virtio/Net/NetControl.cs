using System.Buffers.Binary;
using Vmm.Memory;

namespace Vmm.Devices.Virtio.Net;

/// <summary>The control queue (virtio 1.2 section 5.1.6.5): number of queue pairs, offloads, receive modes. On the thread of the first pair.</summary>
internal sealed class NetControl(VirtioNet device, VirtioActivation activation, Virtqueue ring)
{
    private const byte ClassReceive = 0, ClassMultiQueue = 4, ClassGuestOffloads = 5;
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
        int length = 0;
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

            // Longer commands (MAC tables) are of classes that are not offered: their first bytes are enough to refuse them.
            int part = (int)Math.Min(buffer.Length, (uint)(command.Length - length));
            if (part > 0 && !activation.Memory.TryRead(buffer.Address, command.Slice(length, part)))
            {
                return false;
            }

            length += part;
        }

        if (step == ChainStep.Malformed || length < 2 || ack is not { } at)
        {
            return false;
        }

        activation.Memory.TryWrite(at, Do(command[0], command[1], command[2..length]) ? Ok : Error);
        ring.Complete(head, 1);
        return true;
    }

    private bool Do(byte group, byte command, ReadOnlySpan<byte> data) => group switch
    {
        // Filters are best effort (5.1.6.5.1): a tap has one reader, and what it sends is meant for the guest. Every mode is granted, none filters.
        ClassReceive => command <= 5 && data.Length >= 1 && data[0] <= 1,
        ClassMultiQueue => command == 0 && data.Length >= 2 && (activation.Features & NetFeatures.MultiQueue) != 0
            && device.SetActivePairs(BinaryPrimitives.ReadUInt16LittleEndian(data)),
        ClassGuestOffloads => command == 0 && data.Length >= 8 && SetOffloads(BinaryPrimitives.ReadUInt64LittleEndian(data)),
        _ => false,
    };

    private bool SetOffloads(ulong wanted) =>
        (activation.Features & NetFeatures.ControlGuestOffloads) != 0 && (wanted & ~(activation.Features & NetFeatures.GuestOffloads)) == 0
        && device.Backend.SetOffloads(NetFeatures.Offloads(wanted));
}
