using System.Text;
using Vmm.Devices.Virtio.Console;

namespace Vmm.Devices.Tests.Virtio.Console;

public sealed class VirtioConsoleTests
{
    [Fact]
    public void What_the_guest_writes_reaches_the_sink_in_order()
    {
        Sink sink = new();
        using QueueGuest guest = new(new VirtioConsole(sink));
        StringBuilder expected = new();
        for (int i = 0; i < 200; i++)
        {
            string text = $"line {i} of output\n";
            expected.Append(text);
            byte[] bytes = Encoding.ASCII.GetBytes(text);
            bytes.CopyTo(guest.Ram(QueueGuest.Data, bytes.Length));
            guest.Post(1, (QueueGuest.Data, 5, false), (QueueGuest.Data + 5, bytes.Length - 5, false));
            Assert.Equal(0u, guest.WaitUsed(1).Written);
        }

        Assert.Equal(expected.ToString(), sink.Text);
    }

    [Fact]
    public void A_big_buffer_comes_out_whole()
    {
        Sink sink = new();
        using QueueGuest guest = new(new VirtioConsole(sink));
        byte[] bytes = new byte[100_001];
        new Random(3).NextBytes(bytes);
        bytes.CopyTo(guest.Ram(QueueGuest.Data, bytes.Length));
        guest.Post(1, (QueueGuest.Data, bytes.Length, false));
        guest.WaitUsed(1);
        Assert.Equal(bytes, sink.Bytes);
    }

    [Fact]
    public void Input_waits_for_buffers_and_arrives_whole()
    {
        using VirtioConsole device = new(new Sink());
        byte[] sent = new byte[20_000];
        new Random(5).NextBytes(sent);
        using QueueGuest guest = new(device, activate: false);
        int taken = 0;
        Thread sending = new(() => taken = device.Send(sent)); // from before there is a driver
        sending.Start();
        guest.Activate();
        List<byte> got = [];
        while (got.Count < sent.Length)
        {
            guest.Post(0, (QueueGuest.Data, 100, true), (QueueGuest.Data + 100, 200, true));
            uint written = guest.WaitUsed(0).Written;
            Assert.InRange(written, 1u, 300u);
            got.AddRange(guest.Ram(QueueGuest.Data, (int)written));
        }

        Assert.True(sending.Join(20_000));
        Assert.Equal(sent.Length, taken);
        Assert.Equal(sent, got);
    }

    [Fact]
    public void Input_that_comes_later_fills_the_buffers_that_wait()
    {
        using VirtioConsole device = new(new Sink());
        using QueueGuest guest = new(device);
        for (int i = 0; i < 3; i++)
        {
            guest.Post(0, (QueueGuest.Data + ((ulong)i * 64), 64, true));
        }

        for (int i = 0; i < 3; i++)
        {
            Assert.Equal(2, device.Send([(byte)i, 7]));
            Assert.Equal(2u, guest.WaitUsed(0).Written);
            Assert.Equal([(byte)i, 7], guest.Ram(QueueGuest.Data + ((ulong)i * 64), 2).ToArray());
        }
    }

    [Fact]
    public void Close_ends_a_send_that_waits()
    {
        using VirtioConsole device = new(new Sink());
        int taken = 0;
        Thread sending = new(() => taken = device.Send(new byte[10_000]));
        sending.Start();
        Assert.False(sending.Join(50));
        device.Close();
        Assert.True(sending.Join(20_000));
        Assert.Equal(VirtioConsole.InputRoom, taken);
        Assert.Equal(0, device.Send([1]));
    }

    [Fact]
    public void Size_is_told_and_the_emergency_write_needs_no_driver()
    {
        Sink sink = new();
        using VirtioConsole device = new(sink);
        using QueueGuest guest = new(device);
        device.Resize(132, 43);
        Assert.Equal(1, guest.ConfigChanges);
        byte[] config = new byte[16];
        device.ReadConfig(0, config);
        Assert.Equal([132, 0, 43, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], config);
        device.Reset();
        device.WriteConfig(8, [(byte)'!', 0, 0, 0]);
        device.WriteConfig(0, [1, 2, 3, 4]);
        Assert.Equal("!", sink.Text);
    }

    [Fact]
    public void A_looped_chain_asks_for_a_reset_and_a_reset_heals()
    {
        Sink sink = new();
        using QueueGuest guest = new(new VirtioConsole(sink));
        guest.WriteDescriptor(1, 0, QueueGuest.Data, 1, 1, 0);
        guest.MakeAvailable(1, 0);
        guest.Kick(1);
        Assert.Contains("malformed", guest.WaitNeedsReset(), StringComparison.Ordinal);
        guest.Device.Reset();
        guest.Activate();
        int before = sink.Bytes.Length;
        guest.Post(1, (QueueGuest.Data, 3, false));
        guest.WaitUsed(1);
        Assert.Equal(before + 3, sink.Bytes.Length);
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Nonsense_in_the_queues_never_hangs_or_throws()
    {
        using VirtioConsole device = new(new Sink());
        using CancellationTokenSource end = new();
        Thread typist = new(() =>
        {
            while (device.Send([1, 2, 3]) > 0)
            {
            }
        });
        typist.Start();
        QueueFuzz.Run(device, 303, (random, _) => device.Resize((ushort)random.Next(200), 1));
        device.Close();
        typist.Join();
    }

    private sealed class Sink : IConsoleSink
    {
        private readonly List<byte> _bytes = [];

        public byte[] Bytes
        {
            get
            {
                lock (_bytes)
                {
                    return [.. _bytes];
                }
            }
        }

        public string Text => Encoding.ASCII.GetString(Bytes);

        public void Write(ReadOnlySpan<byte> bytes)
        {
            lock (_bytes)
            {
                if (_bytes.Count < 10_000_000)
                {
                    _bytes.AddRange(bytes);
                }
            }
        }
    }
}
