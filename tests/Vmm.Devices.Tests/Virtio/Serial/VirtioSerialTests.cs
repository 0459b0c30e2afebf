using System.Buffers.Binary;
using System.Text;
using Vmm.Devices.Virtio.Serial;
using Vmm.Interop;
using Vmm.State;

namespace Vmm.Devices.Tests.Virtio.Serial;

public sealed class VirtioSerialTests
{
    private const int ControlIn = 2, ControlOut = 3, In = 4, Out = 5;
    private const ushort DeviceReady = 0, PortAdd = 1, PortReady = 3, PortOpen = 6, PortName = 7;
    private const ulong Data = QueueGuest.Data;
    private static readonly byte[] s_thaw = [.. "thaw\n"u8];

    [Fact]
    public void A_driver_is_told_of_the_named_port_in_the_order_of_the_specification()
    {
        using VirtioSerial device = new();
        using QueueGuest guest = new(device);
        Tell(guest, 0, DeviceReady, 1);
        Assert.Equal((1u, PortAdd, (ushort)1, ""), Hear(guest));
        Tell(guest, 1, PortReady, 1);
        Assert.Equal((1u, PortName, (ushort)1, VirtioSerial.AgentPort), Hear(guest));
        Assert.Equal((1u, PortOpen, (ushort)1, ""), Hear(guest));
        Assert.False(device.IsOpen);
        Assert.Null(device.TryConnect([]));
        Tell(guest, 1, PortOpen, 1);
        Assert.True(device.IsOpen);
        byte[] config = new byte[16];
        device.ReadConfig(0, config);
        Assert.Equal([0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], config);
    }

    [Fact]
    public void However_often_a_driver_asks_nothing_piles_up()
    {
        using VirtioSerial device = new();
        using QueueGuest guest = new(device);
        for (int i = 0; i < 1000; i++)
        {
            Tell(guest, 0, DeviceReady, 1);
            Tell(guest, 1, PortReady, 1);
            Tell(guest, (uint)i, 99, 1);
        }

        Assert.Equal([PortAdd, PortName, PortOpen], [Hear(guest).Event, Hear(guest).Event, Hear(guest).Event]);
        Tell(guest, 0, DeviceReady, 1);
        Assert.Equal(PortAdd, Hear(guest).Event);
    }

    [Fact]
    public void Bytes_go_both_ways_whole_and_in_order_also_through_a_stream_that_is_full()
    {
        using VirtioSerial device = new();
        using QueueGuest guest = new(device);
        using UnixStream host = Connect(guest, device);
        byte[] said = new byte[1_000_001];
        new Random(7).NextBytes(said);
        said.CopyTo(guest.Ram(Data, said.Length));
        guest.Post(Out, (Data, 400_000, false), (Data + 400_000, said.Length - 400_000, false));
        Assert.Equal(said, Read(host, said.Length)); // far more than a socket holds
        Assert.Equal(0u, guest.WaitUsed(Out).Written);
        byte[] told = said[..200_000];
        Thread sending = new(() => Write(host, told));
        sending.Start();
        List<byte> got = [];
        while (got.Count < told.Length)
        {
            guest.Post(In, (Data, 3000, true), (Data + 3000, 5000, true));
            uint written = guest.WaitUsed(In).Written;
            Assert.InRange(written, 1u, 8000u);
            got.AddRange(guest.Ram(Data, (int)written));
        }

        sending.Join();
        Assert.Equal(told, got);
    }

    [Fact]
    public void Without_a_stream_the_output_goes_nowhere()
    {
        using VirtioSerial device = new();
        using QueueGuest guest = new(device);
        for (int i = 0; i < 100; i++)
        {
            guest.Post(Out, (Data, 1 << 20, false));
            guest.WaitUsed(Out);
        }
    }

    [Theory]
    [InlineData("close")]
    [InlineData("reset")]
    [InlineData("another")]
    [InlineData("gone")]
    public void A_stream_ends_with_the_port_the_driver_the_next_stream_and_the_device(string how)
    {
        VirtioSerial device = new();
        using QueueGuest guest = new(device);
        using UnixStream host = Connect(guest, device);
        Exchange(guest, host);
        switch (how)
        {
            case "close":
                Tell(guest, 1, PortOpen, 0);
                Assert.Null(device.TryConnect([]));
                break;
            case "reset":
                device.Reset();
                Assert.Null(device.TryConnect([]));
                break;
            case "another":
                using (UnixStream next = UnixStream.FromDescriptor(device.TryConnect([])!))
                {
                    Exchange(guest, next);
                }

                break;
            default:
                device.Dispose();
                break;
        }

        Assert.Empty(Read(host, 1)); // the end
    }

    [Fact]
    public void A_host_that_goes_frees_a_guest_whose_output_waited_and_its_last_words_come_before_what_follows()
    {
        using VirtioSerial device = new();
        using QueueGuest guest = new(device);
        UnixStream host = Connect(guest, device, s_thaw);
        guest.Post(Out, (Data, 2 << 20, false)); // more than the stream takes
        Thread.Sleep(20);
        Assert.False(guest.TryTakeUsed(Out, out _, out _));
        Assert.True(host.Send("half a requ"u8) > 0);
        host.Dispose();
        guest.WaitUsed(Out);
        string got = "";
        while (!got.EndsWith("thaw\n", StringComparison.Ordinal))
        {
            guest.Post(In, (Data, 64, true));
            got += Encoding.ASCII.GetString(guest.Ram(Data, (int)guest.WaitUsed(In).Written));
        }

        // What was sent may be lost with the connection; the last words never are.
        Assert.Matches("^(half a requ)?thaw\n$", got);
        using UnixStream next = UnixStream.FromDescriptor(device.TryConnect([])!);
        Exchange(guest, next);
    }

    [Fact]
    public void A_held_device_moves_nothing_and_loses_nothing()
    {
        using VirtioSerial device = new();
        using QueueGuest guest = new(device);
        using UnixStream host = Connect(guest, device);
        for (int round = 0; round < 20; round++)
        {
            Assert.True(device.TryHold(TimeSpan.FromSeconds(20)));
            guest.Post(In, (Data, 64, true));
            guest.Post(Out, (Data + 64, 8, false));
            host.Send("ab"u8);
            Thread.Sleep(round < 2 ? 20 : 0);
            Assert.False(guest.TryTakeUsed(In, out _, out _) || guest.TryTakeUsed(Out, out _, out _));
            device.Resume();
            Assert.Equal(2u, guest.WaitUsed(In).Written);
            guest.WaitUsed(Out);
            Assert.Equal(8, Read(host, 8).Length);
        }
    }

    [Fact]
    public void A_restored_port_is_open_has_no_stream_and_tells_the_last_words_of_the_one_it_had()
    {
        using VirtioSerial first = new(), second = new();
        using QueueGuest guest = new(first);
        Tell(guest, 1, PortReady, 1);
        using UnixStream host = Connect(guest, first, s_thaw);
        Exchange(guest, host);
        Assert.True(first.TryHold(TimeSpan.FromSeconds(20)));
        StateWriter saved = new(new PartId("device/agent"));
        first.Save(saved);
        second.Restore(new StateReader(saved.ToBlob()));
        using QueueGuest later = new(second);
        Assert.True(second.IsOpen);
        Assert.Equal([PortName, PortOpen], [Hear(later).Event, Hear(later).Event]);
        later.Post(In, (Data, 64, true));
        Assert.Equal("thaw\n", Encoding.ASCII.GetString(later.Ram(Data, (int)later.WaitUsed(In).Written)));
        using UnixStream anew = UnixStream.FromDescriptor(second.TryConnect([])!);
        Exchange(later, anew);
    }

    [Fact]
    public void A_saved_state_with_too_many_last_words_is_refused()
    {
        StateWriter saved = new(new PartId("device/agent"));
        saved.Write(DeviceStates.Serial, new SerialStateV1
        {
            GuestOpen = true, OwesAdd = false, OwesName = false, OwesOpen = false, Farewell = new byte[4096],
        });
        using VirtioSerial device = new();
        StateException refused = Assert.Throws<StateException>(() => device.Restore(new StateReader(saved.ToBlob())));
        Assert.Contains("4096 bytes", refused.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(ControlOut, 7, false)]
    [InlineData(ControlIn, 7, true)]
    public void A_control_buffer_that_is_too_short_asks_for_a_reset(int queue, int length, bool writable)
    {
        using QueueGuest guest = new(new VirtioSerial());
        Tell(guest, 0, DeviceReady, 1);
        guest.Post(queue, (Data, length, writable));
        Assert.Contains("malformed", guest.WaitNeedsReset(), StringComparison.Ordinal);
    }

    private static UnixStream Connect(QueueGuest guest, VirtioSerial device, byte[]? farewell = null)
    {
        Tell(guest, 1, PortOpen, 1);
        return UnixStream.FromDescriptor(device.TryConnect(farewell)!);
    }

    private static void Exchange(QueueGuest guest, UnixStream host)
    {
        "answer"u8.CopyTo(guest.Ram(Data, 6));
        guest.Post(Out, (Data, 6, false));
        Assert.Equal("answer"u8.ToArray(), Read(host, 6));
        guest.WaitUsed(Out);
        host.Send("question"u8);
        guest.Post(In, (Data, 64, true));
        Assert.Equal(8u, guest.WaitUsed(In).Written);
        Assert.True(guest.Ram(Data, 8).SequenceEqual("question"u8));
    }

    private static void Tell(QueueGuest guest, uint port, ushort what, ushort value)
    {
        const ulong At = Data + 0x200000;
        BinaryPrimitives.WriteUInt32LittleEndian(guest.Ram(At, 4), port);
        BinaryPrimitives.WriteUInt16LittleEndian(guest.Ram(At + 4, 2), what);
        BinaryPrimitives.WriteUInt16LittleEndian(guest.Ram(At + 6, 2), value);
        guest.Post(ControlOut, (At, 8, false));
        guest.WaitUsed(ControlOut);
    }

    private static (uint Port, ushort Event, ushort Value, string Text) Hear(QueueGuest guest)
    {
        const ulong At = Data + 0x300000;
        guest.Post(ControlIn, (At, 512, true));
        int written = (int)guest.WaitUsed(ControlIn).Written;
        Span<byte> m = guest.Ram(At, written);
        return (BinaryPrimitives.ReadUInt32LittleEndian(m), BinaryPrimitives.ReadUInt16LittleEndian(m[4..]),
            BinaryPrimitives.ReadUInt16LittleEndian(m[6..]), Encoding.UTF8.GetString(m[8..]));
    }

    private static byte[] Read(UnixStream from, int length)
    {
        byte[] bytes = new byte[length];
        int got = 0, count = -1;
        Assert.True(SpinWait.SpinUntil(
            () =>
            {
                count = from.Receive(bytes.AsSpan(got));
                got += Math.Max(count, 0);
                return count == 0 || got == length;
            },
            20_000));
        return bytes[..got];
    }

    private static void Write(UnixStream to, byte[] bytes)
    {
        int sent = 0;
        Assert.True(SpinWait.SpinUntil(() => (sent += Math.Max(to.Send(bytes.AsSpan(sent)), 0)) == bytes.Length, 20_000));
    }
}
