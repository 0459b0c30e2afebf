using System.Text;
using Microsoft.Win32.SafeHandles;
using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.Machine.Moving;
using static Vmm.Machine.Tests.Moving.MovingKit;

namespace Vmm.Machine.Tests.Moving;

/// <summary>What comes out of channels, from senders of all kinds.</summary>
public sealed class MoveChannelTests
{
    private const int Pages = 300;

    [Fact]
    public void Heads_come_out_as_they_went_in_and_no_bit_of_a_frame_can_change_unnoticed()
    {
        byte[] content = new byte[2 * MoveFrame.PageBytes];
        new Random(1).NextBytes(content);
        MoveFrame frame = new(MoveFrameKind.Pages, 3, 1UL << 40, 2, content.Length);
        byte[] head = new byte[MoveFrame.HeadBytes];
        frame.Write(head, content);
        Assert.True(MoveFrame.TryRead(head, out MoveFrame read, out string problem), problem);
        Assert.Equal(frame, read);
        Assert.True(MoveFrame.Checks(head, content));
        for (int bit = 0; bit < head.Length * 8; bit++)
        {
            head[bit / 8] ^= (byte)(1 << (bit % 8));
            Assert.False(MoveFrame.TryRead(head, out _, out _) && MoveFrame.Checks(head, content), $"bit {bit}");
            head[bit / 8] ^= (byte)(1 << (bit % 8));
        }

        content[5000] ^= 4;
        Assert.False(MoveFrame.Checks(head, content));
    }

    [Fact]
    public void Rounds_of_pages_and_zeros_arrive_by_any_number_of_channels()
    {
        foreach (int channels in new[] { 1, 2, 5 })
        {
            using Far far = new(channels);
            far.Greet();
            far.Offer("machine");
            Assert.Equal("machine"u8.ToArray(), far.Receiver.AwaitOffer());
            FakeMemory memory = new(Pages);
            far.Receiver.Accept([memory]);
            Random random = new(channels);
            byte[] expected = new byte[Pages * MoveFrame.PageBytes];
            for (int round = 1; round <= 4; round++)
            {
                for (int i = 0; i < 60; i++)
                {
                    int page = (i * 5) % Pages, count = 1 + random.Next(5);
                    Span<byte> piece = expected.AsSpan(page * MoveFrame.PageBytes, count * MoveFrame.PageBytes);
                    if (random.Next(4) == 0)
                    {
                        piece.Clear();
                        far.Send(i % channels, new MoveFrame(MoveFrameKind.Zeros, 0, (ulong)page, (uint)count, 0), default);
                    }
                    else
                    {
                        random.NextBytes(piece);
                        far.Send(i % channels, new MoveFrame(MoveFrameKind.Pages, 0, (ulong)page, (uint)count, piece.Length), piece);
                    }
                }

                far.SendToAll(new MoveFrame(MoveFrameKind.Mark, 0, (ulong)round, 0, 0));
            }

            far.Send(0, new MoveFrame(MoveFrameKind.Document, 0, 0, 0, 3), "sta"u8);
            far.Send(0, new MoveFrame(MoveFrameKind.Document, 0, 3, 1, 2), "te"u8);
            far.SendToAll(new MoveFrame(MoveFrameKind.End, 0, 0, 0, 0));
            Assert.Equal("state"u8.ToArray(), far.Receiver.AwaitEnd());
            far.Receiver.Complete();
            Assert.Equal(expected, memory.Content);
            Assert.Null(far.Receiver.Problem);
        }
    }

    [Fact]
    public void A_channel_that_has_ended_its_round_waits_for_the_others()
    {
        using Far far = new(2);
        far.Greet();
        far.Offer("machine");
        _ = far.Receiver.AwaitOffer();
        FakeMemory memory = new(Pages);
        far.Receiver.Accept([memory]);
        byte[] old = new byte[MoveFrame.PageBytes], young = new byte[MoveFrame.PageBytes];
        old.AsSpan().Fill(1);
        young.AsSpan().Fill(2);
        far.Send(0, new MoveFrame(MoveFrameKind.Mark, 0, 1, 0, 0), default);
        far.Send(0, new MoveFrame(MoveFrameKind.Pages, 0, 7, 1, young.Length), young); // of round 2
        Thread.Sleep(50);
        Assert.Equal(0, memory.Content[7 * MoveFrame.PageBytes]);
        far.Send(1, new MoveFrame(MoveFrameKind.Pages, 0, 7, 1, old.Length), old); // of round 1
        far.Send(1, new MoveFrame(MoveFrameKind.Mark, 0, 1, 0, 0), default);
        Await(() => memory.Content[7 * MoveFrame.PageBytes] == 2, () => $"page 7 has {memory.Content[7 * MoveFrame.PageBytes]}");
        far.SendToAll(new MoveFrame(MoveFrameKind.Mark, 0, 2, 0, 0));
    }

    public static TheoryData<string, string> Wrong => new()
    {
        { "another program", "bytes that are no frame" },
        { "another release", "speaks version 2" },
        { "swapped channels", "of 2 for the sender" }, // either of the two may be looked at first
        { "two moves", "of another move" },
        { "no greeting", "does not belong there" },
        { "too long an offer", "has more than" },
        { "a hole in the offer", "out of order" },
        { "no such memory", "pages of memory 1; there are 1" },
        { "behind the end", "which has 300" },
        { "far behind the end", "which has 300" },
        { "a round twice", "ended round 1 in round 2" },
        { "a document too early", "ended too early" },
        { "a document elsewhere", "does not belong there" },
        { "pages behind the document", "does not belong there" },
        { "damage", "checksum does not fit" },
        { "the end", "ended too early" },
        { "an answer", "does not belong there" },
    };

    [Theory]
    [MemberData(nameof(Wrong))]
    public void What_no_sender_of_ours_sends_ends_the_move_with_its_name(string what, string why)
    {
        using Far far = new(2);
        FakeMemory memory = new(Pages);
        Misbehave(what, far, memory);
        Await(() => far.Receiver.Problem is not null, () => "it goes on");
        Assert.Contains(why, far.Receiver.Problem, StringComparison.Ordinal);
        Assert.Throws<MoveException>(far.Receiver.AwaitEnd);
        Assert.All(memory.Content, value => Assert.Equal(0, value));
    }

    /// <summary>Any bytes behind a sound beginning: it fails, or waits for more; nothing else.</summary>
    [Fact]
    public void Bytes_that_mean_nothing_end_the_move_and_nothing_else()
    {
        for (int seed = 0; seed < 60; seed++)
        {
            Random random = new(seed);
            using Far far = new(1);
            far.Greet();
            far.Offer("machine");
            _ = far.Receiver.AwaitOffer();
            far.Receiver.Accept([new FakeMemory(Pages)]);
            byte[] bytes = new byte[MoveFrame.HeadBytes + random.Next(9000)];
            random.NextBytes(bytes);
            if (seed % 2 == 0)
            {
                // A head that is nearly sound.
                MoveFrameKind kind = (MoveFrameKind)(1 + random.Next(11));
                int length = bytes.Length - MoveFrame.HeadBytes;
                new MoveFrame(kind, 0, (ulong)random.Next(Pages), (uint)random.Next(3), length)
                    .Write(bytes, bytes.AsSpan(MoveFrame.HeadBytes));
                bytes[random.Next(MoveFrame.HeadBytes)] ^= (byte)(1 << random.Next(8));
            }

            far.SendRaw(0, bytes);
            far.Close();
            Await(() => far.Receiver.Problem is not null, () => "it goes on");
        }
    }

    [Fact]
    public void Memory_that_is_passed_comes_in_its_order_with_its_content()
    {
        using Far far = new(2, mayPass: true);
        far.Greet();
        using MappedMemFd one = new("one", Pages * MoveFrame.PageBytes, 4096), two = new("two", 2 * Pages * MoveFrame.PageBytes, 4096);
        one.CopyFrom(5, "first"u8);
        two.CopyFrom(7, "second"u8);
        far.Pass(0, one.BackingFile);
        far.Pass(1, two.BackingFile);
        far.Offer("machine");
        Assert.Equal("machine"u8.ToArray(), far.Receiver.AwaitOffer());
        IReadOnlyList<FileDescriptorHandle> passed = far.Receiver.TakePassed();
        Assert.Equal(2, passed.Count);
        using MappedMemFd there = MappedMemFd.Adopt(passed[0], "one", one.Length), second = MappedMemFd.Adopt(passed[1], "two", two.Length);
        byte[] said = new byte[6];
        there.CopyTo(5, said.AsSpan(0, 5));
        Assert.Equal("first"u8.ToArray(), said[..5]);
        second.CopyTo(7, said);
        Assert.Equal("second"u8.ToArray(), said);
        second.CopyFrom(100, "back"u8); // the same pages, not a copy
        two.CopyTo(100, said.AsSpan(0, 4));
        Assert.Equal("back"u8.ToArray(), said[..4]);
        far.Receiver.Accept([]);
        far.Send(1, new MoveFrame(MoveFrameKind.Pages, 0, 0, 1, MoveFrame.PageBytes), new byte[MoveFrame.PageBytes]);
        Await(() => far.Receiver.Problem is not null, () => "pages were taken into memory that was passed");
        Assert.Contains("memory 0; there are 0", far.Receiver.Problem, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("nobody may pass")]
    [InlineData("no descriptor")]
    [InlineData("out of order")]
    [InlineData("behind the offer")]
    [InlineData("more than can be numbered")]
    public void Memory_that_comes_otherwise_ends_the_move_and_leaves_no_descriptor_open(string what)
    {
        using MappedMemFd memory = new("passed-otherwise", Pages * MoveFrame.PageBytes, 4096);
        using (Far far = new(1, mayPass: what != "nobody may pass"))
        {
            far.Greet();
            switch (what)
            {
                case "no descriptor":
                    far.Send(0, new MoveFrame(MoveFrameKind.Memory, 0, Pages, 0, 0), default);
                    break;
                case "out of order":
                    far.Pass(0, memory.BackingFile);
                    far.Pass(2, memory.BackingFile);
                    break;
                case "behind the offer":
                    far.Send(0, new MoveFrame(MoveFrameKind.Offer, 0, 0, 0, 1), "x"u8);
                    far.Pass(0, memory.BackingFile);
                    break;
                case "more than can be numbered":
                    for (int i = 0; i <= 256; i++)
                    {
                        far.Pass(i & 255, memory.BackingFile);
                    }

                    break;
                default:
                    far.Pass(0, memory.BackingFile);
                    break;
            }

            Await(() => far.Receiver.Problem is not null, () => "it goes on");
            Assert.Contains("a frame (Memory) that does not belong there", far.Receiver.Problem, StringComparison.Ordinal);
        }

        Assert.Equal(1, Directory.GetFiles("/proc/self/fd").Count(
            each => new FileInfo(each).LinkTarget?.Contains("passed-otherwise", StringComparison.Ordinal) == true));
    }

    [Fact]
    public void What_is_no_memory_of_a_fixed_length_is_not_taken_for_one()
    {
        string path = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(path, new byte[8192]);
            KernelException refused = Assert.Throws<KernelException>(
                () => MappedMemFd.Adopt(Open(path), "vnode 0", 8192));
            Assert.Contains("vnode 0: what was passed is no memory whose length is fixed", refused.Message, StringComparison.Ordinal);
            using MappedMemFd memory = new("m", 8192, 4096);
            refused = Assert.Throws<KernelException>(
                () => MappedMemFd.Adopt(Open($"/proc/self/fd/{memory.BackingFile.DangerousGetHandle()}"), "vnode 0", 4096));
            Assert.Contains("has 8192 bytes, not 4096", refused.Message, StringComparison.Ordinal);
        }
        finally
        {
            File.Delete(path);
        }
    }

    private static FileDescriptorHandle Open(string path)
    {
        SafeFileHandle file = File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite);
        FileDescriptorHandle own = new(file.DangerousGetHandle());
        file.SetHandleAsInvalid();
        return own;
    }

    private static void Misbehave(string what, Far far, FakeMemory memory)
    {
        byte[] page = Enumerable.Repeat((byte)9, MoveFrame.PageBytes).ToArray();
        switch (what)
        {
            case "another program":
                far.SendRaw(1, Encoding.ASCII.GetBytes("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"));
                return;
            case "another release":
                far.Greet(protocol: 2);
                return;
            case "swapped channels":
                far.Greet(numbers: [1, 0]);
                return;
            case "two moves":
                far.Greet(sessions: [1, 2]);
                return;
            case "no greeting":
                far.Send(1, new MoveFrame(MoveFrameKind.Mark, 0, 1, 0, 0), default);
                return;
        }

        far.Greet();
        if (what == "too long an offer")
        {
            byte[] much = new byte[MoveFrame.MostBytes];
            for (ulong at = 0; far.Receiver.Problem is null; at += (uint)much.Length)
            {
                far.TrySend(0, new MoveFrame(MoveFrameKind.Offer, 0, at, 0, much.Length), much);
            }

            return;
        }

        if (what == "a hole in the offer")
        {
            far.Send(0, new MoveFrame(MoveFrameKind.Offer, 0, 5, 1, 1), "x"u8);
            return;
        }

        far.Offer("machine");
        _ = far.Receiver.AwaitOffer();
        far.Receiver.Accept([memory]);
        MoveFrame pages = new(MoveFrameKind.Pages, 0, 3, 1, page.Length);
        switch (what)
        {
            case "no such memory":
                far.Send(1, pages with { Part = 1 }, page);
                break;
            case "behind the end":
                far.Send(1, pages with { First = Pages }, page);
                break;
            case "far behind the end":
                far.Send(1, new MoveFrame(MoveFrameKind.Zeros, 0, ulong.MaxValue, 2, 0), default);
                break;
            case "a round twice":
                far.SendToAll(new MoveFrame(MoveFrameKind.Mark, 0, 1, 0, 0));
                far.Send(1, new MoveFrame(MoveFrameKind.Mark, 0, 1, 0, 0), default);
                break;
            case "a document too early":
                far.Send(0, new MoveFrame(MoveFrameKind.Document, 0, 0, 1, 1), "x"u8);
                far.Close();
                break;
            case "a document elsewhere":
                far.Send(1, new MoveFrame(MoveFrameKind.Document, 0, 0, 1, 1), "x"u8);
                break;
            case "pages behind the document":
                far.Send(0, new MoveFrame(MoveFrameKind.Document, 0, 0, 1, 1), "x"u8);
                far.Send(0, pages, page);
                break;
            case "damage":
                byte[] bytes = new byte[MoveFrame.HeadBytes + page.Length];
                page.CopyTo(bytes, MoveFrame.HeadBytes);
                pages.Write(bytes, page);
                bytes[^1] ^= 1;
                far.SendRaw(1, bytes);
                break;
            case "the end":
                far.SendRaw(1, new byte[] { 0x56, 0x4D, 0x4D });
                far.Close();
                break;
            default:
                far.Send(0, new MoveFrame(MoveFrameKind.Accepted, 0, 0, 0, 0), default);
                break;
        }
    }

    /// <summary>Memory of a machine that is not there.</summary>
    private sealed class FakeMemory(int pages) : IMovedMemory
    {
        internal byte[] Content { get; } = new byte[pages * MoveFrame.PageBytes];

        public ulong Bytes => (ulong)Content.Length;

        public void Fill(ulong offset, ReadOnlySpan<byte> bytes) => bytes.CopyTo(Content.AsSpan((int)offset));

        public void Clear(ulong offset, ulong length) => Content.AsSpan((int)offset, (int)length).Clear();
    }

    /// <summary>A receiver, and the far ends of its channels, which send what they like.</summary>
    private sealed class Far : IDisposable
    {
        private readonly MoveChannel[] _channels;

        internal Far(int channels, bool mayPass = false)
        {
            (FileDescriptorHandle[] send, FileDescriptorHandle[] receive) = Channels(channels);
            _channels = [.. send.Select((each, i) => new MoveChannel(each, i))];
            Receiver = new MoveReceiver([.. receive.Select((each, i) => new MoveChannel(each, i))], PlainIoThreads.Instance, mayPass);
        }

        internal MoveReceiver Receiver { get; }

        internal void Greet(int protocol = MoveHello.Current, int[]? numbers = null, ulong[]? sessions = null)
        {
            Span<byte> hello = stackalloc byte[MoveHello.Bytes];
            for (int i = 0; i < _channels.Length; i++)
            {
                new MoveHello(protocol, numbers?[i] ?? i, _channels.Length, sessions?[i] ?? 77).Write(hello);
                TrySend(i, new MoveFrame(MoveFrameKind.Hello, 0, 0, 0, hello.Length), hello);
            }
        }

        internal void Pass(int part, FileDescriptorHandle file) =>
            _channels[0].Pass(new MoveFrame(MoveFrameKind.Memory, part, Pages, 0, 0), file);

        internal void Offer(string text) =>
            Send(0, new MoveFrame(MoveFrameKind.Offer, 0, 0, 1, text.Length), Encoding.ASCII.GetBytes(text));

        internal void Send(int channel, in MoveFrame frame, ReadOnlySpan<byte> content) => _channels[channel].Send(frame, content);

        internal void SendToAll(in MoveFrame frame)
        {
            foreach (MoveChannel channel in _channels)
            {
                channel.Send(frame, default);
            }
        }

        // It may have given up already.
        internal void TrySend(int channel, in MoveFrame frame, ReadOnlySpan<byte> content)
        {
            try
            {
                Send(channel, frame, content);
            }
            catch (MoveException)
            {
            }
        }

        internal void SendRaw(int channel, ReadOnlySpan<byte> bytes) => _channels[channel].Send(bytes);

        internal void Close()
        {
            foreach (MoveChannel channel in _channels)
            {
                channel.Cut();
            }
        }

        public void Dispose()
        {
            Receiver.Dispose();
            foreach (MoveChannel channel in _channels)
            {
                channel.Dispose();
            }
        }
    }
}
