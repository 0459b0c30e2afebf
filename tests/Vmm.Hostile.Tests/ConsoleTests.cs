namespace Vmm.Hostile.Tests;

/// <summary>Guests that abuse a console (virtio 1.2 section 5.3).</summary>
public sealed class ConsoleTests : IDisposable
{
    private const int Receive = 0, Transmit = 1;
    private const ulong In = DeviceGuest.Data, Out = DeviceGuest.Data + 0x8000;
    private readonly ConsoleBench _bench = new();
    private readonly DeviceGuest _guest;

    public ConsoleTests()
    {
        _guest = new DeviceGuest(_bench.Device, TransportKind.Mmio);
        _guest.Start();
    }

    public void Dispose()
    {
        _bench.Heal(_guest);
        _guest.Dispose();
        _bench.Dispose();
    }

    /// <summary>Output of any length and framing arrives byte for byte.</summary>
    [Theory]
    [InlineData(1, 1)]
    [InlineData(2, 1)]
    [InlineData(16, 1)]
    [InlineData(16, 16)]
    [InlineData(4095, 1)]
    [InlineData(4096, 1)]
    [InlineData(4097, 1)]
    [InlineData(4097, 3)]
    [InlineData(32768, 1)]
    [InlineData(32768, 7)]
    public void Output_of_any_length(int length, int pieces)
    {
        List<Piece> chain = [];
        int at = 0;
        for (int i = 0; i < pieces; i++)
        {
            int part = i + 1 < pieces ? length / pieces : length - at;
            chain.Add(new(Out + (ulong)at, (uint)part, false));
            at += part;
        }

        Assert.Equal(0u, _guest.Request(Transmit, [.. chain]));
        Assert.Equal(_guest.At(Out, length).ToArray(), _bench.Output);
    }

    /// <summary>Output that the device shall write is none; of a mixed chain what is readable counts.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(5)]
    public void Writable_output_is_none(int readable)
    {
        _guest.Watch();
        Piece[] chain = readable == 0 ? [new(Out, 100, true)] : [new(Out, (uint)readable, false), new(Out + 64, 100, true)];
        Assert.Equal(0u, _guest.Request(Transmit, chain));
        Assert.Equal(readable, _bench.Output.Length);
        _guest.AssertContained();
    }

    /// <summary>Input goes into whatever there is to write, never beyond it, and waits for the rest.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(9)]
    [InlineData(10)]
    [InlineData(11)]
    [InlineData(4096)]
    public void Input_into_buffers_of_any_length(int room)
    {
        byte[] typed = [.. "0123456789"u8];
        int buffers = (typed.Length + room - 1) / room;
        for (int i = 0; i < buffers; i++)
        {
            _guest.Post(Receive, new Piece(In + (0x1000 * (ulong)i % 0x7000), (uint)room, true));
        }

        _guest.Watch();
        _bench.Console.Send(typed);
        int got = 0;
        for (int i = 0; i < buffers && got < typed.Length; i++)
        {
            got += (int)_guest.WaitUsed(Receive).Written;
        }

        Assert.Equal(typed.Length, got);
        _guest.AssertContained(
            [.. Enumerable.Range(0, buffers).Select(i => new Piece(In + (0x1000 * (ulong)i % 0x7000), (uint)room, true))]);
    }

    /// <summary>
    /// A receive buffer that the device cannot write takes no input: it comes back empty, and the input waits for the next.
    /// </summary>
    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public void A_readable_receive_buffer(int pieces)
    {
        Piece[] chain = [.. Enumerable.Range(0, pieces).Select(i => new Piece(In + (64 * (ulong)i), 64, false))];
        int head = _guest.Post(Receive, chain);
        _guest.Watch();
        _bench.Console.Send("x"u8);
        Assert.Equal(((uint)head, 0u), _guest.WaitUsed(Receive));
        _guest.AssertContained();
        Assert.Equal(1u, _guest.Request(Receive, new Piece(In, 64, true)));
        Assert.Equal((byte)'x', _guest.At(In, 1)[0]);
    }

    /// <summary>
    /// Emergency writes (5.3.4): one byte at their place, also from a driver that has negotiated nothing; nothing elsewhere.
    /// </summary>
    [Theory]
    [InlineData(8, 1, true)]
    [InlineData(8, 2, true)]
    [InlineData(8, 4, true)]
    [InlineData(8, 8, true)]
    [InlineData(0, 4, false)]
    [InlineData(4, 4, false)]
    [InlineData(4, 8, false)]
    [InlineData(9, 1, false)]
    [InlineData(10, 2, false)]
    [InlineData(12, 4, false)]
    public void Emergency_write(int offset, int length, bool heard)
    {
        _guest.Port.Status = 0;
        byte[] before = new byte[8], after = new byte[8];
        _guest.Port.ReadConfig(0, before);
        _guest.Port.WriteConfig(offset, "!abcdefg"u8[..length]);
        Assert.Equal(heard ? "!"u8.ToArray() : [], _bench.Output);
        _guest.Port.ReadConfig(0, after);
        Assert.Equal(before, after);
    }

    /// <summary>Controls of a device with several ports, which this is not (5.3.5): queues that do not exist.</summary>
    [Theory]
    [InlineData(2u)]
    [InlineData(3u)]
    [InlineData(5u)]
    public void There_are_no_control_queues(uint queue)
    {
        _guest.Port.Select(queue);
        Assert.Equal(0, _guest.Port.Size);
        _guest.Port.Notify(queue);
        _bench.ServeAll(_guest);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public void A_feature_of_several_ports_is_not_granted(int features)
    {
        _guest.Features |= features == 1 ? 2UL : 0xFUL << 4;
        _guest.Negotiate();
        Assert.Equal(3, _guest.Port.Status);
    }

    /// <summary>The same chain made available many times is as many outputs.</summary>
    [Theory]
    [InlineData(2)]
    [InlineData(16)]
    public void One_chain_many_times(int times)
    {
        _guest.Lay(_guest.Plans[Transmit].Table, 0, [new(Out, 8, false)]);
        for (int i = 0; i < times; i++)
        {
            _guest.Offer(Transmit, 0);
        }

        _guest.Kick(Transmit);
        for (int i = 0; i < times; i++)
        {
            Assert.Equal((0u, 0u), _guest.WaitUsed(Transmit));
        }

        Assert.Equal(8 * times, _bench.Output.Length);
    }

    /// <summary>A reset among megabytes of output ends it soon, and no input is lost by resets.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(5)]
    public void A_reset_among_output(int milliseconds)
    {
        Piece[] chain = [.. Enumerable.Repeat(new Piece(0, GuestRam.Bytes, false), 16)];
        _guest.Post(Transmit, chain);
        Thread.Sleep(milliseconds);
        _guest.Port.Status = 0;
        Assert.Equal(0, _guest.Port.Status);
        _bench.Console.Send("kept"u8);
        _guest.Start();
        Assert.Equal(4u, _guest.Request(Receive, new Piece(In, 64, true)));
        Assert.True(_guest.At(In, 4).SequenceEqual("kept"u8));
    }
}
