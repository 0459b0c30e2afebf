using Vmm.Devices.Tests.Virtio.Blk;
using Vmm.Devices.Tests.Virtio.Net;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Console;
using Vmm.Devices.Virtio.Net;
using Vmm.Devices.Virtio.Rng;
using Vmm.Storage;

namespace Vmm.Devices.Tests.Virtio;

/// <summary>A device that is held touches nothing of the guest, and goes on where it was: none lost, none doubled, order kept.</summary>
public sealed class HoldTests
{
    private const ulong In = QueueGuest.Data, Out = QueueGuest.Data + 0x800000;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(20);

    [Fact]
    public void A_held_device_takes_nothing_until_it_goes_on()
    {
        using BlkGuest guest = new(new VirtioRng());
        for (int round = 0; round < 50; round++)
        {
            Assert.True(guest.Device.TryHold(s_patience));
            ushort head = guest.Post((BlkGuest.Data, 64, true));
            guest.Kick();
            Thread.Sleep(round < 3 ? 30 : 0);
            Assert.False(guest.TryTakeUsed(out _, out _));
            guest.Device.Resume();
            Assert.Equal((head, 64u), ((ushort)guest.WaitUsed().Head, 64u));
        }
    }

    [Fact]
    public void A_held_disk_has_nothing_in_flight_and_its_rings_say_where_it_is()
    {
        using FaultyDisk disk = new(new MemoryDiskBackend(1 << 20)) { Hold = true };
        VirtioBlk device = new(disk);
        using BlkGuest guest = new(device, activate: false);
        VirtioActivation activation = guest.Activation();
        guest.Device.Activate(activation);
        for (int i = 0; i < 5; i++)
        {
            guest.Post((guest.PutHeader(0, (ulong)i, i), 16, false), (BlkGuest.Data, 512, true), (guest.PutStatus(i), 1, true));
        }

        guest.Kick();
        Assert.True(SpinWait.SpinUntil(() => disk.Holding == 5, 20_000));
        Assert.False(guest.Device.TryHold(TimeSpan.FromMilliseconds(50)));
        Assert.Equal((5, 0), (device.Counters.InFlight, device.Counters.Held));
        disk.Hold = false;
        Assert.True(guest.Device.TryHold(s_patience));
        Assert.Equal((0, 0), (device.Counters.InFlight, device.Counters.Held));
        Virtqueue queue = activation.Queues[0]!.Queue;
        Assert.Equal((5, 5), (queue.NextAvailable, queue.NextUsed));
        guest.Post((guest.PutHeader(0, 9, 9), 16, false), (BlkGuest.Data, 512, true), (guest.PutStatus(9), 1, true));
        guest.Kick();
        Thread.Sleep(30);
        Assert.Equal((5, 5), (queue.NextAvailable, queue.NextUsed));
        for (int i = 0; i < 5; i++)
        {
            guest.WaitUsed();
        }

        guest.Device.Resume();
        guest.WaitUsed();
    }

    [Fact]
    public void What_a_rate_limit_held_back_returns_to_the_ring()
    {
        VirtioBlk device = new(new MemoryDiskBackend(1 << 20));
        using BlkGuest guest = new(device, activate: false);
        device.SetLimit(new RateLimit(0, 20));
        VirtioActivation activation = guest.Activation();
        device.Activate(activation);
        for (int i = 0; i < 20; i++)
        {
            guest.Post((guest.PutHeader(0, (ulong)i, i), 16, false), (BlkGuest.Data, 512, true), (guest.PutStatus(i), 1, true));
        }

        guest.Kick();
        Assert.True(SpinWait.SpinUntil(() => device.Counters.Held == 1, 20_000)); // the others wait in the ring as well
        for (int round = 0; round < 30; round++)
        {
            Assert.True(device.TryHold(s_patience));
            Virtqueue queue = activation.Queues[0]!.Queue;
            Assert.Equal(queue.NextUsed, queue.NextAvailable);
            device.Resume();
        }

        device.SetLimit(null);
        HashSet<uint> heads = [];
        for (int i = 0; i < 20; i++)
        {
            Assert.True(heads.Add(guest.WaitUsed().Head));
        }
    }

    [Fact]
    public void A_chain_that_went_back_is_read_anew()
    {
        using MemoryDiskBackend disk = new(1 << 20);
        VirtioBlk device = new(disk);
        using BlkGuest guest = new(device, activate: false);
        device.SetLimit(new RateLimit(0, 1, 0, 1));
        device.Activate(guest.Activation());
        guest.Ram(BlkGuest.Data, 512).Fill(0x77);
        for (int i = 0; i < 2; i++)
        {
            guest.Post((guest.PutHeader(1, 4, i), 16, false), (BlkGuest.Data, 512, false), (guest.PutStatus(i), 1, true));
            guest.Kick();
            if (i == 0)
            {
                guest.WaitUsed();
                Assert.True(device.TryHold(s_patience));
                device.Resume();
                guest.Ram(BlkGuest.Data, 512).Fill(0x11); // the second write waits for the limit
            }
        }

        Thread.Sleep(50);
        Assert.True(device.TryHold(s_patience));
        guest.PutHeader(99, 4, 1); // what waited becomes something that storage never sees
        device.SetLimit(null);
        device.Resume();
        guest.WaitUsed();
        Assert.Equal(2, guest.Ram(guest.PutStatusAddress(1), 1)[0]); // unsupported
        Assert.Equal((0, 512u + 1), guest.Request(0, 4, BlkGuest.Data + 4096, 512, dataWritable: true));
        Assert.Equal(-1, guest.Ram(BlkGuest.Data + 4096, 512).IndexOfAnyExcept((byte)0x77));
    }

    [Fact]
    public void A_network_device_that_is_held_again_and_again_loses_no_frame()
    {
        MemoryNet net = new();
        VirtioNet device = new(net, new VirtioNetOptions { Mac = new byte[] { 0x52, 0x54, 0, 1, 2, 3 } });
        using QueueGuest guest = new(device);
        int posted = 0;
        for (; posted < QueueGuest.Size; posted++)
        {
            guest.Post(0, (In + ((ulong)(posted % QueueGuest.Size) * 2048), 2048, true));
        }

        for (int frame = 0; frame < 400; frame++)
        {
            if (frame % 4 == 0)
            {
                Assert.True(device.TryHold(s_patience));
            }

            net.Send(0, [.. BitConverter.GetBytes(frame), .. new byte[60]]);
            guest.Ram(Out + 12, 4).Clear();
            BitConverter.TryWriteBytes(guest.Ram(Out + 12, 4), frame);
            guest.Post(1, (Out, 100, false));
            if (frame % 4 == 0)
            {
                Assert.False(guest.TryTakeUsed(1, out _, out _));
                device.Resume();
            }

            uint head = guest.WaitUsed(0).Head;
            Assert.Equal(frame, BitConverter.ToInt32(guest.Ram(In + (head * 2048UL) + 12, 4)));
            guest.Post(0, (In + ((ulong)(posted++ % QueueGuest.Size) * 2048), 2048, true));
            guest.WaitUsed(1);
            Assert.Equal(frame, BitConverter.ToInt32(net.Receive(0).AsSpan(12)));
        }

        Assert.Equal(0, device.Counters.Dropped);
    }

    [Fact]
    public void Input_of_a_held_console_waits()
    {
        VirtioConsole device = new(new NoSink());
        using QueueGuest guest = new(device);
        Assert.True(device.TryHold(s_patience));
        device.Send("abc"u8);
        guest.Post(0, (In, 64, true));
        Thread.Sleep(30);
        Assert.False(guest.TryTakeUsed(0, out _, out _));
        device.Resume();
        Assert.Equal(3u, guest.WaitUsed(0).Written);
    }

    private sealed class NoSink : IConsoleSink
    {
        public void Write(ReadOnlySpan<byte> bytes)
        {
        }
    }
}
