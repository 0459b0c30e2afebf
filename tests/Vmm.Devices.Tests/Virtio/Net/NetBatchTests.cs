using System.Buffers.Binary;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Net;
using Vmm.Interop;

namespace Vmm.Devices.Tests.Virtio.Net;

/// <summary>Batches of frames, driven step by step on the test's thread.</summary>
public sealed class NetBatchTests
{
    private const ulong In = QueueGuest.Data, Out = QueueGuest.Data + 0x800000;
    private const ulong GuestCsum = 2, Tso4 = 1 << 7, Mergeable = 1 << 15;

    [Theory]
    [InlineData(0UL, 2048)]
    [InlineData(Mergeable, 2048)]
    [InlineData(Mergeable | GuestCsum | Tso4, 2048)]
    [InlineData(Mergeable | GuestCsum | Tso4, 300)]
    public void Frames_of_every_size_arrive_whole_and_in_order(ulong features, int buffer)
    {
        MemoryNet net = new();
        using QueueGuest guest = new(new VirtioNet(net, new VirtioNetOptions { Mac = new byte[] { 0x52, 0x54, 0, 1, 2, 3 } }), features);
        Random random = new(5);
        int largest = (features & Tso4) != 0 ? 14_000 : buffer > 1514 ? 1514 : buffer - 12, posted = 0;
        while (posted < QueueGuest.Size)
        {
            Post();
        }

        for (int round = 0; round < 150; round++)
        {
            byte[][] frames = [.. Enumerable.Range(0, random.Next(1, 10))
                .Select(_ => new byte[random.Next(4) == 0 ? random.Next(60, largest + 1) : random.Next(60, Math.Min(largest, 280))])];
            foreach (byte[] frame in frames)
            {
                random.NextBytes(frame);
                net.Send(0, frame);
            }

            foreach (byte[] frame in frames)
            {
                List<byte> got = [];
                int chains = 1;
                for (int i = 0; i < chains; i++)
                {
                    (uint head, uint written) = guest.WaitUsed(0);
                    Span<byte> data = guest.Ram(In + (head * 2048UL), (int)written);
                    chains = i == 0 ? BinaryPrimitives.ReadUInt16LittleEndian(data[10..]) : chains;
                    Assert.True(i == chains - 1 || written == buffer);
                    got.AddRange(data);
                    Post();
                }

                Assert.True(frame.AsSpan().SequenceEqual(got.ToArray().AsSpan(12)));
            }
        }

        Assert.Equal(0, ((VirtioNet)guest.Device).Counters.Dropped);

        // The test's head is its place: buffers come back in the order they were posted.
        void Post() => guest.Post(0, (In + ((ulong)(posted++ % QueueGuest.Size) * 2048), buffer, true));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_frame_allocates_nothing(bool segments)
    {
        ForeverNet net = new(segments ? 5000 : 1500);
        using VirtioNet device = new(new MemoryNet(), new VirtioNetOptions { Mac = new byte[] { 0x52, 0x54, 0, 1, 2, 3 } });
        using QueueGuest guest = new(device, Mergeable | GuestCsum | Tso4, activate: false);
        VirtioActivation activation = guest.Activation();
        using NetReceiver receiver = new(device, activation, activation.Queues[0]!.Queue, net, 16, static () => { });
        NetSender sender = new(device, activation, activation.Queues[1]!.Queue, net, 16, static () => { });
        for (int i = 0; i < QueueGuest.Size; i++)
        {
            guest.WriteDescriptor(0, i, In + ((ulong)i * 2048), 2048, 2, 0);
            guest.WriteDescriptor(1, i, Out + ((ulong)i * 2048), 1512, 0, 0);
        }

        // A path taken for the first time may load code once; a cost per frame would show in every batch.
        long least = long.MaxValue;
        int moved = 0, broken = 0; // an assertion allocates
        for (int batch = 0; batch < 5; batch++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            Round(200);
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
        }

        Assert.Equal((0, 0), (least, broken));
        Assert.InRange(moved, 3000, int.MaxValue);

        void Round(int count)
        {
            int timeout = -1;
            for (int i = 0; i < count; i++)
            {
                for (ushort head = 0; head < 16; head++)
                {
                    guest.MakeAvailable(0, (ushort)(((i * 16) + head) % QueueGuest.Size));
                    guest.MakeAvailable(1, (ushort)(((i * 16) + head) % QueueGuest.Size));
                }

                for (NetProgress progress = NetProgress.More; progress == NetProgress.More;)
                {
                    progress = receiver.Serve(ref timeout, ref moved);
                    broken += progress == NetProgress.Broken ? 1 : 0;
                }

                broken += sender.Serve(ref timeout, ref moved) == NetProgress.More ? 0 : 1; // a full batch: there might be more
                activation.Queues[0]!.Queue.Publish();
                activation.Queues[1]!.Queue.Publish();
            }
        }
    }

    [Fact]
    public void What_the_host_has_no_room_for_is_written_once_and_first_when_there_is_room()
    {
        ForeverNet net = new(60) { Room = 3 };
        using VirtioNet device = new(new MemoryNet(), new VirtioNetOptions { Mac = new byte[] { 0x52, 0x54, 0, 1, 2, 3 } });
        using QueueGuest guest = new(device, 0, activate: false);
        VirtioActivation activation = guest.Activation();
        NetSender sender = new(device, activation, activation.Queues[1]!.Queue, net, 16, static () => { });
        for (int i = 0; i < 12; i++)
        {
            guest.WriteDescriptor(1, i, Out, 72 + (uint)i, 0, 0);
            guest.MakeAvailable(1, (ushort)i);
        }

        int timeout = -1, moved = 0;
        for (int round = 1; round <= 3; round++)
        {
            Assert.Equal(NetProgress.Blocked, sender.Serve(ref timeout, ref moved));
            Assert.Equal(3 * round, moved);
            net.Room = 3;
        }

        sender.GiveBack(); // three were taken and not sent
        Assert.Equal(9, activation.Queues[1]!.Queue.NextAvailable);
        net.Room = 100;
        Assert.Equal(NetProgress.Idle, sender.Serve(ref timeout, ref moved));
        Assert.Equal(Enumerable.Range(0, 12).Select(i => 72L + i), net.Written);
    }

    /// <summary>A host that always has a frame, and room for so many.</summary>
    private sealed class ForeverNet(int length) : INetQueue
    {
        public int Room { get; set; } = int.MaxValue;

        public List<long> Written { get; } = new(capacity: 1 << 20);

        public FileDescriptorHandle Handle => throw new NotSupportedException();

        public int Read(Span<TapFrame> frames)
        {
            for (int i = 0; i < frames.Length; i++)
            {
                frames[i].Result = length + 12;
                if (frames[i].Result > frames[i].Room)
                {
                    return i + 1;
                }
            }

            return frames.Length;
        }

        public int Write(Span<TapFrame> frames)
        {
            int i = 0;
            for (; i < frames.Length && Room > 0; i++, Room--)
            {
                frames[i].Result = 0;
                foreach (ref readonly IoVector vector in HostSpan.Vectors(frames[i].Vectors, frames[i].Count))
                {
                    frames[i].Result += (long)vector.Length;
                }

                Written.Add(frames[i].Result);
            }

            return i;
        }
    }
}
