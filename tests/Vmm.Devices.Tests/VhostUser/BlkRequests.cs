using System.Buffers.Binary;
using Vmm.Devices.Tests.Virtio;

namespace Vmm.Devices.Tests.VhostUser;

/// <summary>Requests of a driver of a disk, by slots: each has its own descriptors, header, sector of data and status.</summary>
internal static class BlkRequests
{
    internal const ulong RingBits = (1UL << 28) | (1UL << 32);

    internal static ulong At(int slot) => QueueGuest.Data + ((ulong)slot * 0x1000);

    internal static ushort Post(QueueGuest guest, int queue, int slot, uint type, int sector)
    {
        Span<byte> header = guest.Ram(At(slot), 16);
        header.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(header, type);
        BinaryPrimitives.WriteUInt64LittleEndian(header[8..], (ulong)sector);
        guest.Ram(At(slot) + 0x80, 1)[0] = 0xff;
        int head = 3 * slot; // its own descriptors, whatever else is in flight
        guest.WriteDescriptor(queue, head, At(slot), 16, 1, (ushort)(head + 1));
        guest.WriteDescriptor(queue, head + 1, At(slot) + 0x100, 512, (ushort)(type == 0 ? 3 : 1), (ushort)(head + 2));
        guest.WriteDescriptor(queue, head + 2, At(slot) + 0x80, 1, 2, 0);
        guest.MakeAvailable(queue, (ushort)head);
        guest.Kick(queue);
        return (ushort)head;
    }
}
