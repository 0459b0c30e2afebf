using System.Buffers.Binary;
using Vmm.Interop;

namespace Vmm.Devices.Virtio.Net;

/// <summary>
/// Tells the host's network where a MAC address is from now on: a VM that came from another host, or from a file, may be behind another
/// port of its switches, which learn that from the next frame. A request of RARP (RFC 903) to everybody is one that no station answers.
/// </summary>
internal sealed class NetAnnouncement
{
    /// <summary>Bytes of the frame: the shortest that Ethernet has, without its checksum.</summary>
    internal const int FrameLength = 60;

    private const ushort Rarp = 0x8035, Ethernet = 1, Ipv4 = 0x0800, RequestReverse = 3;
    private const int MacLength = 6, AddressLength = 4, TypeAt = 12, BodyAt = 14, SenderAt = 22, TargetAt = 32;

    private int _asked;

    /// <summary>The next thread that moves frames sends it.</summary>
    internal void Ask() => Volatile.Write(ref _asked, 1);

    /// <summary>
    /// Sends it once when it was asked for and there is an interface of the host; on the queue's thread. A queue that has no room, or
    /// refuses it, loses it: the guest's next frame tells the same.
    /// </summary>
    internal void Send(VirtioNet device, INetQueue queue)
    {
        if (Interlocked.Exchange(ref _asked, 0) == 0 || device.Interface is null)
        {
            return;
        }

        using NativeArray<byte> bytes = new(TapQueue.HeaderLength + FrameLength);
        using NativeArray<IoVector> vector = new(1);
        Write(device.Mac, bytes.Span[TapQueue.HeaderLength..]);
        vector.Span[0] = new IoVector(bytes.AddressOf(0), (nuint)bytes.Length);
        _ = queue.Write([new TapFrame(vector.AddressOf(0), 1)]);
    }

    /// <summary>Writes the frame: zeros where nothing is said.</summary>
    internal static void Write(ReadOnlySpan<byte> mac, Span<byte> frame)
    {
        frame[..FrameLength].Clear();
        frame[..MacLength].Fill(0xFF);
        mac.CopyTo(frame[MacLength..]);
        BinaryPrimitives.WriteUInt16BigEndian(frame[TypeAt..], Rarp);
        BinaryPrimitives.WriteUInt16BigEndian(frame[BodyAt..], Ethernet);
        BinaryPrimitives.WriteUInt16BigEndian(frame[(BodyAt + 2)..], Ipv4);
        (frame[BodyAt + 4], frame[BodyAt + 5]) = (MacLength, AddressLength);
        BinaryPrimitives.WriteUInt16BigEndian(frame[(BodyAt + 6)..], RequestReverse);
        mac.CopyTo(frame[SenderAt..]);
        mac.CopyTo(frame[TargetAt..]);
    }
}
