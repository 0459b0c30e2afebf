using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.Machine.Moving;

namespace Vmm.Fuzz;

/// <summary>
/// A channel of any bytes, behind a sound greeting. With an odd first byte they are frames with sound checksums, eight bytes each, so that
/// what lies behind the checksum is met, too. The move ends, with a reason of bounded length or complete, and nothing is written outside
/// the memory that there is.
/// </summary>
internal static class MovesTarget
{
    private const int Pages = 40, MostBytes = 96 << 10; // a socket takes them without a reader

    internal static void Run(byte[] input)
    {
        (UnixStream own, FileDescriptorHandle theirs) = UnixStream.CreatePair();
        using MoveChannel channel = new(own, 0);
        using MoveReceiver receiver = new([new MoveChannel(theirs, 0)], PlainIoThreads.Instance, mayPass: true);
        Span<byte> hello = stackalloc byte[MoveHello.Bytes];
        new MoveHello(MoveHello.Current, 0, 1, 1).Write(hello);
        channel.Send(new MoveFrame(MoveFrameKind.Hello, 0, 0, 0, hello.Length), hello);
        channel.Send(new MoveFrame(MoveFrameKind.Offer, 0, 0, 1, 1), "x"u8);
        _ = receiver.AwaitOffer();
        receiver.Accept([new Memory()]);
        try
        {
            if (input.Length > 0 && input[0] % 2 == 1)
            {
                SendFrames(channel, input);
            }
            else
            {
                channel.Send(input.AsSpan(0, Math.Min(input.Length, MostBytes)));
            }
        }
        catch (MoveException)
        {
            // it has seen enough
        }

        channel.EndSend();
        try
        {
            _ = receiver.AwaitEnd();
        }
        catch (MoveException refused) when (refused.Message.Length is > 0 and < 500
            && !refused.Message.Contains("cannot be filled", StringComparison.Ordinal))
        {
        }
    }

    private static void SendFrames(MoveChannel channel, byte[] input)
    {
        byte[] content = new byte[MoveFrame.MostBytes];
        int sent = 0;
        for (int at = 1; at + 8 <= input.Length && sent < MostBytes; at += 8)
        {
            int length = Math.Min(input[at + 5] % 4 * MoveFrame.PageBytes, MostBytes - sent) + (input[at + 6] % 16);
            content.AsSpan(0, length).Fill(input[at + 7]);
            ulong first = input[at + 2] < 250 ? (uint)(input[at + 2] | ((input[at + 3] & 1) << 8)) : ulong.MaxValue - input[at + 3];
            MoveFrame frame = new((MoveFrameKind)(input[at] % 12), input[at + 1] % 3, first, input[at + 4], length);
            channel.Send(frame, content.AsSpan(0, length));
            sent += MoveFrame.HeadBytes + length;
        }
    }

    private sealed class Memory : IMovedMemory
    {
        private readonly byte[] _bytes = new byte[Pages * MoveFrame.PageBytes];

        public ulong Bytes => (ulong)_bytes.Length;

        public void Fill(ulong offset, ReadOnlySpan<byte> pages) => pages.CopyTo(_bytes.AsSpan((int)offset));

        public void Clear(ulong offset, ulong length) => _bytes.AsSpan((int)offset, (int)length).Clear();
    }
}
