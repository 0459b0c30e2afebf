using System.Buffers.Binary;
using System.Collections.Concurrent;
using Vmm.Devices.Virtio.Net;
using Vmm.Interop;

namespace Vmm.Devices.Tests.Virtio.Net;

/// <summary>virtio-net in front of a stream socket, with a program at its far end that does as it likes.</summary>
public sealed class StreamNetTests
{
    private const ulong In = QueueGuest.Data, Out = QueueGuest.Data + 0x800000;
    private const int Header = 12;

    [Theory]
    [InlineData(14)]
    [InlineData(60)]
    [InlineData(1514)]
    [InlineData(65549)]
    public void Frames_arrive_whole_both_ways(int length)
    {
        (UnixStream far, StreamNetBackend net) = Connect();
        using (far)
        using (QueueGuest guest = new(Device(net)))
        {
            byte[] frame = Frame(length, 1);
            guest.Post(0, (In, 70_000, true));
            SendWhole(far, frame);
            Assert.Equal((uint)(Header + length), guest.WaitUsed(0).Written);
            Assert.Equal([.. new byte[10], 1, 0, .. frame], guest.Ram(In, Header + length).ToArray());

            frame.CopyTo(guest.Ram(Out + Header, length));
            guest.Post(1, (Out, 5, false), (Out + 5, 20, false), (Out + 25, length + Header - 25, false));
            Assert.Equal(frame, ReceiveFrame(far));
        }
    }

    [Fact]
    public void A_stream_in_any_pieces_gives_the_same_frames()
    {
        (UnixStream far, StreamNetBackend net) = Connect();
        using (far)
        using (QueueGuest guest = new(Device(net)))
        {
            Random random = new(5);
            byte[][] frames = [.. Enumerable.Range(0, 60).Select(i => Frame(random.Next(14, 3000), i))];
            for (int i = 0; i < frames.Length; i++)
            {
                guest.Post(0, (In + ((ulong)i * 4096), 4096, true));
            }

            byte[] all = [.. frames.SelectMany(Prefixed)];
            for (int at = 0; at < all.Length;)
            {
                int part = Math.Min(random.Next(1, 2000), all.Length - at);
                Send(far, all.AsSpan(at, part));
                at += part;
                Thread.Sleep(random.Next(0, 2));
            }

            for (int i = 0; i < frames.Length; i++)
            {
                Assert.Equal((uint)(Header + frames[i].Length), guest.WaitUsed(0).Written);
                Assert.Equal(frames[i], guest.Ram(In + ((ulong)i * 4096) + Header, frames[i].Length).ToArray());
            }
        }
    }

    [Fact]
    public void A_far_side_that_reads_nothing_for_a_while_costs_no_frame_and_mixes_none()
    {
        (UnixStream far, StreamNetBackend net) = Connect();
        using (far)
        using (QueueGuest guest = new(Device(net)))
        {
            const int count = 60, length = 30_000; // more than a socket holds
            for (int i = 0; i < count; i++)
            {
                ulong at = Out + ((ulong)i * 32768);
                Frame(length, i).CopyTo(guest.Ram(at + Header, length));
                guest.Post(1, (at, Header + length, false));
            }

            Thread.Sleep(50);
            int used = 0;
            while (guest.TryTakeUsed(1, out _, out _))
            {
                used++;
            }

            Assert.InRange(used, 1, count - 1); // it holds the rest back
            for (int i = 0; i < count; i++)
            {
                Assert.Equal(Frame(length, i), ReceiveFrame(far));
            }

            for (; used < count; used++)
            {
                guest.WaitUsed(1);
            }

            Assert.Equal(0, ((VirtioNet)guest.Device).Counters.Dropped);
        }
    }

    [Theory]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(5)]
    public void The_end_of_a_frame_that_went_out_in_part_needs_no_other_frame_behind_it(int frames)
    {
        (UnixStream far, StreamNetBackend net) = Connect();
        using (far)
        using (QueueGuest guest = new(Device(net)))
        {
            const int length = 65549; // a socket holds about three
            Frame(length, 1).CopyTo(guest.Ram(Out + Header, length));
            for (int i = 0; i < frames; i++)
            {
                guest.Post(1, (Out, Header + length, false));
                Thread.Sleep(5);
            }

            for (int i = 0; i < frames; i++)
            {
                Assert.Equal(Frame(length, 1), ReceiveFrame(far));
            }
        }
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(13u)]
    [InlineData(65550u)]
    [InlineData(0x8000_0000u)]
    [InlineData(uint.MaxValue)]
    public void A_length_that_no_frame_has_takes_the_link_down(uint length)
    {
        (UnixStream far, StreamNetBackend net) = Connect();
        using (far)
        using (QueueGuest guest = new(Device(net)))
        {
            guest.Post(0, (In, 4096, true));
            byte[] prefix = new byte[4];
            BinaryPrimitives.WriteUInt32BigEndian(prefix, length);
            Send(far, prefix);
            WaitLink(guest, up: false);
            Wait(() => far.IsPeerGone, "the connection stays");
            guest.Post(1, (Out, 72, false));
            guest.WaitUsed(1);
            guest.Device.Reset();
            guest.Activate();
            guest.Post(0, (In, 4096, true));
            WaitLink(guest, up: false); // and again after a reset
        }
    }

    [Fact]
    public void A_far_side_that_ends_is_replaced_and_the_link_comes_back()
    {
        ConcurrentQueue<UnixStream> far = [];
        ConcurrentQueue<string> notes = [];
        int refusals = 2;
        (UnixStream first, FileDescriptorHandle theirs) = UnixStream.CreatePair();
        StreamNetBackend net = new(theirs, new StreamNetOptions
        {
            Name = "net3",
            Note = notes.Enqueue,
            Pause = TimeSpan.FromMilliseconds(1),
            Connect = _ =>
            {
                if (refusals-- > 0)
                {
                    throw new IOException("it does not start");
                }

                (UnixStream next, FileDescriptorHandle socket) = UnixStream.CreatePair();
                far.Enqueue(next);
                return Task.FromResult(socket);
            },
        });
        using (QueueGuest guest = new(Device(net)))
        {
            guest.Post(0, (In, 4096, true));
            for (int round = 0; round < 3; round++)
            {
                Send(first, [0, 0]); // in the middle of a length
                first.Dispose();
                Wait(() => far.TryDequeue(out first!), "nobody connects again");
                WaitLink(guest, up: true, changes: 2 * (round + 1));
                byte[] frame = Frame(100, round);
                SendWhole(first, frame);
                Assert.Equal(112u, guest.WaitUsed(0).Written);
                Assert.Equal(frame, guest.Ram(In + Header, 100).ToArray());
                guest.Post(0, (In, 4096, true));
                guest.Post(1, (Out, 72, false));
                Assert.Equal(60, ReceiveFrame(first).Length);
            }

            Assert.Equal(
                ["net3: user-mode networking (passt) is lost: it closed the connection; the guest's link is down",
                    "net3: it does not start", "net3: user-mode networking (passt) is back, and the guest's link up"],
                notes.Take(3));
        }

        first.Dispose();
    }

    [Fact]
    public void What_the_guest_sends_that_is_no_frame_is_refused_and_what_comes_behind_it_is_sent()
    {
        (UnixStream far, StreamNetBackend net) = Connect();
        using (far)
        using (QueueGuest guest = new(Device(net)))
        {
            guest.Post(1, (Out, Header, false));
            guest.Post(1, (Out, Header + 13, false));
            guest.Post(1, (Out, Header + 65550, false));
            guest.Post(1, (Out, Header + 20, false));
            Assert.Equal(20, ReceiveFrame(far).Length);
            Wait(() => ((VirtioNet)guest.Device).Counters is { SentPackets: 1, Dropped: 3 }, "counted wrong");
        }
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Any_bytes_of_the_far_side_end_in_frames_or_a_link_that_is_down()
    {
        Random random = new(17);
        for (int round = 0; round < Math.Min(QueueFuzz.Iterations, 2000) / 10; round++)
        {
            (UnixStream far, StreamNetBackend net) = Connect();
            using (far)
            using (QueueGuest guest = new(Device(net)))
            {
                for (int i = 0; i < 32; i++)
                {
                    guest.Post(0, (In + ((ulong)i * 2048), random.Next(12, 2048), true));
                }

                byte[] noise = new byte[random.Next(0, 5000)];
                random.NextBytes(noise);
                byte[] frames = [.. Enumerable.Range(0, random.Next(0, 5)).SelectMany(i => Prefixed(Frame(random.Next(14, 4000), i)))];
                Send(far, [.. frames, .. noise]);
                far.Dispose();
                WaitLink(guest, up: false);
            }
        }
    }

    [Fact]
    public void A_frame_allocates_nothing()
    {
        (UnixStream far, StreamNetBackend net) = Connect();
        using (far)
        using (net)
        using (NativeArray<byte> bytes = new(Header + 1514))
        using (NativeArray<IoVector> vector = new(1))
        {
            vector.Span[0] = new IoVector(bytes.AddressOf(0), (nuint)bytes.Length);
            TapFrame[] frames = [.. Enumerable.Range(0, 16).Select(_ => new TapFrame(vector.AddressOf(0), 1))];
            INetQueue queue = net.Queue(0);
            byte[] echo = new byte[64 * 1518];
            long least = long.MaxValue;
            int sent = 0, read = 0;
            for (int batch = 0; batch < 20; batch++)
            {
                long before = GC.GetAllocatedBytesForCurrentThread();
                sent += queue.Write(frames);
                int length = Math.Max(0, far.Receive(echo));
                far.Send(echo.AsSpan(0, length));
                read += queue.Read(frames);
                least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
            }

            Assert.Equal((320, 320, 0L), (sent, read, least));
        }
    }

    private static (UnixStream Far, StreamNetBackend Net) Connect()
    {
        (UnixStream far, FileDescriptorHandle theirs) = UnixStream.CreatePair();
        return (far, new StreamNetBackend(theirs, new StreamNetOptions()));
    }

    private static VirtioNet Device(StreamNetBackend net) =>
        new(net, new VirtioNetOptions { Mac = new byte[] { 0x52, 0x54, 0, 1, 2, 3 }, Mtu = 65520 });

    private static byte[] Frame(int length, int seed)
    {
        byte[] frame = new byte[length];
        new Random(seed).NextBytes(frame);
        return frame;
    }

    private static byte[] Prefixed(byte[] frame)
    {
        byte[] prefix = new byte[4];
        BinaryPrimitives.WriteInt32BigEndian(prefix, frame.Length);
        return [.. prefix, .. frame];
    }

    private static void SendWhole(UnixStream far, byte[] frame) => Send(far, Prefixed(frame));

    private static void Send(UnixStream far, ReadOnlySpan<byte> bytes)
    {
        long deadline = Environment.TickCount64 + 20_000;
        while (!bytes.IsEmpty)
        {
            int sent = far.Send(bytes);
            if (sent < 0)
            {
                return; // it has seen enough
            }

            bytes = bytes[sent..];
            Assert.True(Environment.TickCount64 < deadline, "the device does not read");
        }
    }

    private static byte[] ReceiveFrame(UnixStream far)
    {
        byte[] prefix = Receive(far, 4);
        return Receive(far, BinaryPrimitives.ReadInt32BigEndian(prefix));
    }

    private static byte[] Receive(UnixStream far, int length)
    {
        byte[] bytes = new byte[length];
        long deadline = Environment.TickCount64 + 20_000;
        for (int at = 0; at < length;)
        {
            int received = far.Receive(bytes.AsSpan(at));
            Assert.NotEqual(0, received);
            at += Math.Max(0, received);
            Assert.True(Environment.TickCount64 < deadline, $"{at} of {length} bytes came");
        }

        return bytes;
    }

    private static void WaitLink(QueueGuest guest, bool up, int changes = 1)
    {
        byte[] status = new byte[2];
        guest.Wait(() =>
        {
            guest.Device.ReadConfig(6, status);
            return status[0] == (up ? 1 : 0) && guest.ConfigChanges >= changes;
        }, up ? "the link stays down" : "the link stays up");
    }

    private static void Wait(Func<bool> condition, string otherwise) => Assert.True(SpinWait.SpinUntil(condition, 20_000), otherwise);
}
