using System.Buffers.Binary;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Net;
using Vmm.Interop;
using Vmm.State;

namespace Vmm.Devices.Tests.Virtio.Net;

public sealed class VirtioNetTests
{
    private const ulong Csum = 1, GuestCsum = 2, GuestOffloads = 4, Mtu = 8, Tso4 = 1 << 7, Mergeable = 1 << 15, MultiQueue = 1 << 22;
    private const ulong In = QueueGuest.Data, Out = QueueGuest.Data + 0x800000, Ctrl = QueueGuest.Data + 0xF00000;
    private static readonly byte[] Mac = [0x52, 0x54, 0, 1, 2, 3];

    [Fact]
    public void What_the_tap_cannot_do_is_not_offered()
    {
        using VirtioNet all = Device(new MemoryNet(2), mtu: 1400);
        Assert.Equal(0x47BBAFUL, all.DeviceFeatures);
        using VirtioNet few = Device(new MemoryNet(1, TapOffloads.None));
        Assert.Equal((1UL << 5) | Mergeable | (1UL << 16) | (1UL << 17) | (1UL << 18), few.DeviceFeatures);
        using VirtioNet sums = Device(new MemoryNet(1, TapOffloads.Checksum));
        Assert.Equal(few.DeviceFeatures | Csum | GuestCsum | GuestOffloads, sums.DeviceFeatures);
        Assert.Equal([256, 256, 256, 256, 16], all.QueueSizes.Select(s => (int)s));
    }

    [Fact]
    public void The_configuration_says_mac_link_pairs_and_mtu()
    {
        using VirtioNet device = Device(new MemoryNet(3), mtu: 9000);
        byte[] config = new byte[14];
        device.ReadConfig(0, config);
        Assert.Equal([.. Mac, 1, 0, 3, 0, 0x28, 0x23, 0, 0], config);
    }

    [Fact]
    public void The_host_learns_what_the_driver_takes_and_forgets_it_at_the_reset()
    {
        MemoryNet net = new();
        using QueueGuest guest = new(Device(net), GuestCsum | Tso4);
        Assert.Equal(TapOffloads.Checksum | TapOffloads.Tso4, net.Set);
        guest.Device.Reset();
        Assert.Equal(TapOffloads.None, net.Set);
        guest.Activate();
        using QueueGuest wrong = new(Device(net), Tso4); // 5.1.3.1: needs GUEST_CSUM
        Assert.Equal(TapOffloads.None, net.Set);
    }

    [Theory]
    [InlineData("tap0", true)]
    [InlineData("tap0", false)]
    [InlineData(null, true)]
    public void A_restored_device_tells_the_network_where_it_is_once(string? tap, bool restored)
    {
        MemoryNet net = new() { Interface = tap };
        VirtioNet device = Device(net);
        if (restored)
        {
            StateWriter state = new(new PartId("net0"));
            device.Save(state);
            device.Restore(new StateReader(state.ToBlob()));
        }

        using QueueGuest guest = new(device);
        Span<byte> ram = guest.Ram(Out, 72);
        Frame(72, 1).CopyTo(ram);
        guest.Post(1, [(Out, 72, false)]);
        guest.WaitUsed(1);
        byte[]? first = net.Receive(0);
        if (tap is not null && restored)
        {
            byte[] body = [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3, .. Mac, 0, 0, 0, 0, .. Mac, 0, 0, 0, 0];
            byte[] expected = [.. new byte[12], 255, 255, 255, 255, 255, 255, .. Mac, .. body, .. new byte[18]];
            Assert.Equal(expected, first);
            first = net.Receive(0);
        }

        Assert.Equal(Frame(72, 1), first);
        Assert.Null(net.Receive(0));
    }

    [Theory]
    [InlineData(12, 60)]
    [InlineData(5, 3)]
    [InlineData(72, 0)]
    [InlineData(1, 11)]
    public void A_frame_of_the_guest_arrives_in_whatever_pieces(int first, int second)
    {
        MemoryNet net = new();
        using QueueGuest guest = new(Device(net));
        byte[] frame = Frame(72, 1);
        frame.CopyTo(guest.Ram(Out, 72));
        List<(ulong, int, bool)> pieces = [(Out, first, false)];
        if (second > 0)
        {
            pieces.Add((Out + (ulong)first, second, false));
        }

        if (first + second < 72)
        {
            pieces.Add((Out + (ulong)(first + second), 72 - first - second, false));
        }

        guest.Post(1, [.. pieces]);
        Assert.Equal(0u, guest.WaitUsed(1).Written);
        Assert.Equal(frame, net.Receive(0));
        Assert.Equal((1, 60, 0), Sent(guest));
    }

    [Fact]
    public void A_full_host_holds_the_guest_up_and_loses_nothing()
    {
        MemoryNet net = new();
        using QueueGuest guest = new(Device(net));
        const int frames = 1000;
        int got = 0, posted = 0;
        Dictionary<uint, int> slots = [];
        for (; posted < 60; posted++)
        {
            Post();
        }

        // More than a socket buffer holds: the device waits with a frame in its hands.
        for (; posted < frames; posted++)
        {
            while (!guest.TryTakeUsed(1, out _, out _))
            {
                if (net.Receive(0) is { } frame)
                {
                    Assert.Equal(got++, BinaryPrimitives.ReadInt32LittleEndian(frame.AsSpan(12)));
                }
            }

            Post();
        }

        guest.Wait(() =>
        {
            while (net.Receive(0) is { } frame)
            {
                Assert.Equal(got++, BinaryPrimitives.ReadInt32LittleEndian(frame.AsSpan(12)));
            }

            return got == frames;
        }, "frames are missing");
        Assert.Equal((frames, frames * 8000L, 0), Sent(guest));

        void Post()
        {
            ulong at = Out + ((ulong)(posted % 64) * 8192);
            BinaryPrimitives.WriteInt32LittleEndian(guest.Ram(at + 12, 4), posted);
            guest.Post(1, (at, 8012, false));
        }
    }

    [Fact]
    public void A_frame_the_host_refuses_is_counted_and_the_next_one_goes()
    {
        MemoryNet net = new() { RefuseWrites = true };
        using QueueGuest guest = new(Device(net));
        guest.Post(1, (Out, 72, false));
        guest.WaitUsed(1);
        net.RefuseWrites = false;
        guest.Post(1, (Out, 72, false));
        guest.WaitUsed(1);
        Assert.Equal((1, 60, 1), Sent(guest));
    }

    [Theory]
    [InlineData(1, 60)]
    [InlineData(1, 500)]
    [InlineData(3, 1400)]
    [InlineData(33, 16500)]
    public void A_frame_is_spread_over_as_many_buffers_as_it_needs(int buffers, int length)
    {
        MemoryNet net = new();
        using QueueGuest guest = new(Device(net), GuestCsum | Tso4 | Mergeable);
        Span<byte> payload = Frame(length, 7);
        for (int i = 0; i < 60; i++)
        {
            guest.Post(0, (In + ((ulong)i * 512), 512, true));
        }

        net.Send(0, payload, flags: 1);
        int left = length + 12;
        for (int i = 0; i < buffers; i++)
        {
            (uint head, uint written) = guest.WaitUsed(0);
            Assert.Equal(((uint)i, (uint)Math.Min(left, 512)), (head, written));
            left -= 512;
        }

        Assert.False(guest.TryTakeUsed(0, out _, out _));
        ReadOnlySpan<byte> got = guest.Ram(In, length + 12);
        Assert.Equal(buffers, BinaryPrimitives.ReadUInt16LittleEndian(got[10..]));
        Assert.Equal(1, got[0]);
        Assert.True(got[12..].SequenceEqual(payload));
        Assert.Equal((1, (long)length), (Counters(guest).ReceivedPackets, Counters(guest).ReceivedBytes));
    }

    [Fact]
    public void Without_merging_one_buffer_holds_one_frame_and_flags_nobody_asked_for_are_cleared()
    {
        MemoryNet net = new();
        using QueueGuest guest = new(Device(net), 0);
        guest.Post(0, (In, 4, true), (In + 4, 7, true), (In + 11, 1515, true)); // the header in pieces
        guest.Post(0, (In + 4096, 100, true));
        guest.Post(0, (In + 8192, 1526, true));
        byte[] payload = Frame(1514, 3);
        net.Send(0, payload, flags: 2);
        Assert.Equal((0u, 1526u), guest.WaitUsed(0));
        Assert.Equal([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], guest.Ram(In, 12).ToArray());
        Assert.True(guest.Ram(In + 12, 1514).SequenceEqual(payload));
        net.Send(0, payload); // too large for the next buffer
        net.Send(0, payload.AsSpan(0, 60));
        Assert.Equal((3u, 72u), guest.WaitUsed(0));
        Assert.Equal((2, 1), (Counters(guest).ReceivedPackets, Counters(guest).Dropped));
    }

    [Fact]
    public void Frames_wait_for_buffers_in_the_host_and_none_is_lost()
    {
        MemoryNet net = new();
        using QueueGuest guest = new(new VirtioNet(net, new VirtioNetOptions { Mac = Mac, Name = "waiter" }), Mergeable | GuestCsum | Tso4);
        byte[] payload = Frame(20_000, 9);
        net.Send(0, payload);
        net.Send(0, payload.AsSpan(0, 100));
        guest.Post(0, (In, 8192, true)); // not enough: the frame waits
        Thread.Sleep(300);
        Assert.False(guest.TryTakeUsed(0, out _, out _));
        Assert.InRange(TicksOf("waiter"), 0, 8); // nobody turns in circles: that would be about 30, and 10 beside two others
        guest.Post(0, (In + 8192, 8192, true));
        guest.Post(0, (In + 16384, 8192, true));
        Assert.Equal([8192u, 8192u, 20_012u - 16384], Enumerable.Range(0, 3).Select(_ => guest.WaitUsed(0).Written));
        Assert.True(guest.Ram(In + 12, 20_000).SequenceEqual(payload));
        guest.Post(0, (In, 4096, true));
        Assert.Equal(112u, guest.WaitUsed(0).Written);
        Assert.Equal(0, Counters(guest).Dropped);
    }

    [Fact]
    public void A_frame_that_the_whole_ring_cannot_hold_is_dropped()
    {
        MemoryNet net = new();
        using QueueGuest guest = new(Device(net), Mergeable | GuestCsum | Tso4);
        for (int i = 0; i < QueueGuest.Size; i++)
        {
            guest.Post(0, (In + ((ulong)i * 256), 256, true));
        }

        net.Send(0, Frame(30_000, 1));
        net.Send(0, Frame(100, 1));
        Assert.Equal(112u, guest.WaitUsed(0).Written);
        Assert.Equal(1, Counters(guest).Dropped);
    }

    [Fact]
    public void Pairs_are_used_as_the_driver_says()
    {
        MemoryNet net = new(4);
        using QueueGuest guest = new(Device(net));
        Assert.Equal(1, net.Active);
        Assert.Equal(1, Command(guest, 8, 4, 0, 0, 0));
        Assert.Equal(1, Command(guest, 8, 4, 0, 5, 0));
        Assert.Equal(1, Command(guest, 8, 4, 1, 2, 0));
        Assert.Equal(1, Command(guest, 8, 4, 0, 2));
        guest.Post(2, (In, 4096, true));
        net.Send(1, Frame(100, 1));
        Assert.Equal(0, Command(guest, 8, 4, 0, 2, 0));
        Assert.Equal(2, net.Active);
        Assert.Equal(112u, guest.WaitUsed(2).Written);
        guest.Post(3, (Out, 72, false));
        guest.WaitUsed(3);
        Assert.NotNull(net.Receive(1));
        guest.Device.Reset();
        Assert.Equal(1, net.Active);
    }

    [Fact]
    public void Without_multiqueue_the_control_queue_is_the_third()
    {
        MemoryNet net = new(4);
        using QueueGuest guest = new(Device(net), ~MultiQueue);
        Assert.Equal(1, Command(guest, 2, 4, 0, 1, 0));
        Assert.Equal(0, Command(guest, 2, 0, 0, 1));
    }

    [Fact]
    public void Commands_that_are_not_known_or_not_whole_are_refused()
    {
        MemoryNet net = new();
        using QueueGuest guest = new(Device(net), ~(Tso4 | (1UL << 9)));
        Assert.Equal(0, Command(guest, 2, 0, 0, 1));
        Assert.Equal(0, Command(guest, 2, 0, 1, 1));
        // CTRL_RX_EXTRA is not offered
        Assert.All(Enumerable.Range(2, 5), command => Assert.Equal(1, Command(guest, 2, 0, (byte)command, 1)));
        Assert.Equal(1, Command(guest, 2, 0, 0, 2));
        Assert.Equal(0, Command(guest, 2, 5, 0, 0x02, 1, 0, 0, 0, 0, 0, 0));
        Assert.Equal(TapOffloads.Checksum | TapOffloads.Tso6, net.Set);
        Assert.Equal(0, Command(guest, 2, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0));
        Assert.Equal(TapOffloads.None, net.Set);
        Assert.Equal(1, Command(guest, 2, 5, 0, 0x82, 0, 0, 0, 0, 0, 0, 0)); // not negotiated
        Assert.Equal(1, Command(guest, 2, 5, 0, 2));
    }

    [Fact]
    public void A_table_of_addresses_is_granted_when_it_is_whole()
    {
        using QueueGuest guest = new(Device(new MemoryNet()));
        Assert.Equal(0, Table(guest, 0, 0));
        Assert.Equal(0, Table(guest, 1, 0));
        Assert.Equal(0, Table(guest, 2, 3));
        Assert.Equal(0, Table(guest, 300, 200));
        Assert.Equal(1, Table(guest, 1, 1, missing: 1));
        Assert.Equal(1, Table(guest, 1, 1, missing: -1));
        Assert.Equal(1, Table(guest, 0, 0, missing: 4)); // one count
        Assert.Equal(1, Command(guest, 2, 1, 0));
        Assert.Equal(1, Command(guest, 2, 1, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0));
        Assert.Equal(1, Command(guest, 2, 1, 1, 0x52, 0x54, 0, 1, 2, 4)); // CTRL_MAC_ADDR is not offered
    }

    [Fact]
    public void Without_ctrl_rx_no_receive_command_is_granted()
    {
        using QueueGuest guest = new(Device(new MemoryNet()), ~(1UL << 18));
        Assert.All(Enumerable.Range(0, 6), command => Assert.Equal(1, Command(guest, 2, 0, (byte)command, 1)));
        Assert.Equal(1, Table(guest, 0, 0));
    }

    /// <summary>VIRTIO_NET_CTRL_MAC_TABLE_SET in pieces as odd as they come; its answer.</summary>
    private static byte Table(QueueGuest guest, int unicast, int multicast, int missing = 0)
    {
        byte[] whole =
        [
            1, 0, .. BitConverter.GetBytes(unicast), .. new byte[6 * unicast], .. BitConverter.GetBytes(multicast),
            .. new byte[6 * multicast], 0
        ];
        int length = whole.Length - 1 - missing, first = Math.Min(3, length);
        whole.CopyTo(guest.Ram(Ctrl, whole.Length));
        guest.Ram(Ctrl + 0x8000, 1)[0] = 0xEE;
        int second = Math.Max(1, (length - first) / 2);
        guest.Post(
            2,
            (Ctrl, first, false),
            (Ctrl + (ulong)first, second, false),
            (Ctrl + (ulong)(first + second), length - first - second, false),
            (Ctrl + 0x8000, 1, true));
        guest.WaitUsed(2);
        return guest.Ram(Ctrl + 0x8000, 1)[0];
    }

    public static TheoryData<int, (ulong, int, bool)[]> Hostile => new()
    {
        { 0, [(In, 100, false)] },
        { 0, [(In, 11, true)] },
        { 0, [(ulong.MaxValue - 50, 100, true)] },
        { 1, [(Out, 100, true)] },
        { 1, [(Out, 11, false)] },
        { 1, [(Out, 12, false), (Out, 100, true)] },
        { 1, [(1UL << 40, 100, false)] },
        { 2, [(Ctrl, 2, false)] },
        { 2, [(Ctrl, 1, false), (Ctrl, 1, true)] },
        { 2, [(Ctrl, 1, true)] },
    };

    [Theory]
    [MemberData(nameof(Hostile))]
    public void A_malformed_chain_asks_for_a_reset_and_a_reset_heals(int queue, (ulong, int, bool)[] chain)
    {
        MemoryNet net = new();
        using QueueGuest guest = new(Device(net));
        guest.Post(queue, chain);
        Assert.Contains("malformed", guest.WaitNeedsReset(), StringComparison.Ordinal);
        guest.Device.Reset();
        guest.Activate();
        guest.Post(1, (Out, 72, false));
        guest.WaitUsed(1);
        Assert.Equal(0, Command(guest, 2, 0, 0, 1));
    }

    [Fact]
    public void A_reset_with_frames_under_way_ends_soon_and_they_arrive_afterwards()
    {
        MemoryNet net = new();
        using QueueGuest guest = new(Device(net));
        for (int round = 0; round < 30; round++)
        {
            for (int i = 0; i < 20; i++)
            {
                guest.Post(0, (In + ((ulong)i * 2048), 2048, true));
                guest.Post(1, (Out, 4096, false));
                net.Send(0, Frame(60, (byte)i));
            }

            guest.Device.Reset();
            guest.Activate();
            while (net.Receive(0) is not null)
            {
            }

            for (int i = 0; i < 30; i++)
            {
                guest.Post(0, (In + ((ulong)i * 2048), 2048, true));
            }

            net.Send(0, Frame(999, 1));
            guest.Wait(() => guest.TryTakeUsed(0, out _, out uint written) && written == 1011, "the last frame");
            guest.Device.Reset();
            guest.Activate();
        }
    }

    [Fact]
    public void A_host_interface_that_goes_takes_the_link_down_and_the_guest_goes_on()
    {
        MemoryNet net = new();
        using QueueGuest guest = new(Device(net));
        guest.Post(0, (In, 4096, true));
        net.HangUp(0);
        byte[] status = new byte[2];
        guest.Wait(() =>
        {
            guest.Device.ReadConfig(6, status);
            return status[0] == 0 && guest.ConfigChanges == 1;
        }, "the link stays up");
        guest.Post(1, (Out, 72, false));
        guest.WaitUsed(1);
        Assert.Equal((0, 0, 1), Sent(guest));
    }

    [Theory]
    [InlineData(14)] // EFAULT
    [InlineData(12)] // ENOMEM
    [InlineData(5)]  // EIO
    public void A_read_of_the_host_that_fails_costs_one_frame_and_not_the_link(int errno)
    {
        MemoryNet net = new();
        using QueueGuest guest = new(Device(net));
        for (int i = 0; i < 3; i++)
        {
            net.ReadFaults.Enqueue(errno);
        }

        for (int i = 0; i < 16; i++)
        {
            guest.Post(0, (In + ((ulong)i * 2048), 2048, true));
        }

        for (byte i = 0; i < 6; i++)
        {
            net.Send(0, Frame(100, i));
        }

        for (int i = 0; i < 3; i++)
        {
            guest.WaitUsed(0);
        }

        byte[] status = new byte[2];
        guest.Device.ReadConfig(6, status);
        Assert.Equal((1, 0), (status[0], guest.ConfigChanges));
    }

    [Fact]
    public void A_reset_brings_the_link_back()
    {
        MemoryNet net = new();
        using QueueGuest guest = new(Device(net));
        guest.Post(0, (In, 2048, true));
        net.ReadFaults.Enqueue(77); // EBADFD: the interface is gone
        net.Send(0, Frame(100, 1));
        byte[] status = new byte[2];
        guest.Wait(() => guest.ConfigChanges == 1, "the link stays up");
        guest.Device.Reset();
        guest.Device.ReadConfig(6, status);
        Assert.Equal(1, status[0]);
        guest.Activate();
        guest.Post(0, (In, 2048, true));
        net.Send(0, Frame(100, 2));
        Assert.Equal(112u, guest.WaitUsed(0).Written);
    }

    [Fact]
    public void A_limit_holds_both_directions_back_and_a_changed_one_counts_at_once()
    {
        MemoryNet net = new();
        using VirtioNet device = Device(net);
        device.SetLimit(new RateLimit(0, 5, BurstOperations: 4));
        using QueueGuest guest = new(device);
        for (int i = 0; i < 30; i++)
        {
            guest.Post(1, (Out, 72, false));
            guest.Post(0, (In, 2048, true));
            net.Send(0, Frame(60, 1));
        }

        Thread.Sleep(100);
        Assert.InRange(device.Counters.SentPackets, 4, 6);
        Assert.InRange(device.Counters.ReceivedPackets, 4, 6);
        device.SetLimit(null);
        guest.Wait(() => device.Counters is { SentPackets: 30, ReceivedPackets: 30 }, "the limit stays");
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Nonsense_in_rings_and_configuration_space_neither_hangs_nor_crashes() =>
        QueueFuzz.Run(Device(new MemoryNet(2)), 5, (random, guest) =>
        {
            MemoryNet net = (MemoryNet)((VirtioNet)guest.Device).Backend;
            while (net.Receive(0) is not null || net.Receive(1) is not null)
            {
            }

            if (random.Next(4) == 0)
            {
                net.TrySend(0, Frame(random.Next(1, 9000), 1));
            }
        });

    private static string CommOf(string thread)
    {
        try
        {
            return File.ReadAllText(thread + "/comm");
        }
        catch (IOException)
        {
            return ""; // another test's, gone meanwhile
        }
    }

    /// <summary>Processor time of the threads whose name begins so, in hundredths of a second.</summary>
    private static int TicksOf(string name)
    {
        string[] threads = [.. Directory.GetDirectories("/proc/self/task")
            .Where(t => CommOf(t).StartsWith(name, StringComparison.Ordinal))];
        Assert.NotEmpty(threads);
        return threads.Sum(thread =>
        {
            string[] fields = File.ReadAllText(thread + "/stat").Split(") ")[1].Split(' ');
            return int.Parse(fields[11]) + int.Parse(fields[12]); // utime, stime: proc(5)
        });
    }

    private static NetCounters Counters(QueueGuest guest) => ((VirtioNet)guest.Device).Counters;

    private static (long, long, long) Sent(QueueGuest guest)
    {
        guest.Wait(() => Counters(guest) is { SentPackets: > 0 } or { Dropped: > 0 }, "nothing was counted");
        Thread.Sleep(20); // counted after a round
        return (Counters(guest).SentPackets, Counters(guest).SentBytes, Counters(guest).Dropped);
    }

    private static byte[] Frame(int length, byte seed)
    {
        byte[] frame = new byte[length];
        new Random(seed).NextBytes(frame);
        return frame;
    }

    private static byte Command(QueueGuest guest, int queue, params byte[] command)
    {
        command.CopyTo(guest.Ram(Ctrl, command.Length));
        guest.Ram(Ctrl + 100, 1)[0] = 0xEE;
        guest.Post(queue, (Ctrl, 2, false), (Ctrl + 2, command.Length - 2 + (command.Length == 2 ? 1 : 0), false), (Ctrl + 100, 1, true));
        Assert.Equal(1u, guest.WaitUsed(queue).Written);
        return guest.Ram(Ctrl + 100, 1)[0];
    }

    private static VirtioNet Device(MemoryNet net, int mtu = 0) => new(net, new VirtioNetOptions { Mac = Mac, Mtu = mtu });
}
