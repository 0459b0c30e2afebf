using System.Buffers.Binary;
using System.Net.Sockets;

namespace Vmm.Hostile.Tests;

/// <summary>
/// Guests that abuse the packets of a socket device (virtio 1.2 section 5.10.6). A program of the host listens at port 5.
/// </summary>
public sealed class VsockTests : IDisposable
{
    private const ushort Request = 1, Response = 2, Reset = 3, Shutdown = 4, Data = 5, CreditUpdate = 6, CreditRequest = 7;
    private const int Nothing = -1;
    private const ulong In = DeviceGuest.Data, Out = DeviceGuest.Data + 0x8000;
    private const int InBytes = 0x700;
    private readonly VsockBench _bench = new();
    private readonly DeviceGuest _guest;
    private readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private Socket? _program;

    public VsockTests()
    {
        _listener.Bind(new UnixDomainSocketEndPoint(_bench.SocketPath + "_5"));
        _listener.Listen();
        _guest = new DeviceGuest(_bench.Device, TransportKind.Pci);
        Start();
    }

    public void Dispose()
    {
        _program?.Dispose();
        _bench.Heal(_guest);
        _guest.Dispose();
        _listener.Dispose();
        _bench.Dispose();
    }

    /// <summary>
    /// Packets that belong to no connection: operation, type, source, destination, and the operation of the answer (5.10.6.1: a reset, or
    /// nothing).
    /// </summary>
    public static TheoryData<ushort, ushort, ulong, ulong, int> Strangers
    {
        get
        {
            TheoryData<ushort, ushort, ulong, ulong, int> data = [];
            foreach (ushort operation in (ushort[])[0, Response, Shutdown, Data, CreditUpdate, CreditRequest, 8, 0xFFFF])
            {
                data.Add(operation, 1, 7, 2, Reset);
                data.Add(operation, 2, 7, 2, Reset); // SEQPACKET is not offered
                data.Add(operation, 0, 7, 2, Reset);
                data.Add(operation, 1, 8, 2, Nothing); // somebody else's context id
            }

            data.Add(Request, 2, 7, 2, Reset);
            data.Add(Request, 0xFFFF, 7, 2, Reset);
            foreach (ulong destination in (ulong[])[0, 1, 3, 7, uint.MaxValue, ulong.MaxValue, 1UL << 32 | 2])
            {
                data.Add(Request, 1, 7, destination, Reset);
            }

            foreach (ulong source in (ulong[])[0, 1, 2, 3, uint.MaxValue, ulong.MaxValue, 1UL << 32 | 7])
            {
                data.Add(Request, 1, source, 2, Nothing);
            }

            data.Add(Reset, 1, 7, 2, Nothing);
            data.Add(Reset, 9, 7, 2, Nothing);
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Strangers))]
    public void A_packet_that_belongs_to_nothing(ushort operation, ushort type, ulong source, ulong destination, int answer)
    {
        Send(operation, port: 10, hostPort: 5, type: type, source: source, destination: destination);
        if (answer == Reset)
        {
            Packet packet = Receive();
            // The answer names who asked, and has its type: so that the guest can tell whose it is.
            Assert.Equal(
                (Reset, type, 5u, 10u, destination), (packet.Operation, packet.Type, packet.Port, packet.GuestPort, packet.Source));
        }

        AssertNothingMore();
    }

    /// <summary>Ports that nobody listens at.</summary>
    [Theory]
    [InlineData(0u)]
    [InlineData(4u)]
    [InlineData(6u)]
    [InlineData(0x7FFF_FFFFu)]
    [InlineData(uint.MaxValue)]
    public void A_request_to_nobody(uint port)
    {
        Send(Request, port: 10, hostPort: port);
        Assert.Equal((Reset, port), (Receive().Operation, port));
        AssertNothingMore();
    }

    /// <summary>
    /// What an established connection is told, and how it goes on: Nothing, or the operation of the answer. A reset ends it.
    /// </summary>
    public static TheoryData<string, ushort, uint, int, int> Established => new()
    {
        { "a second request", Request, 0, 0, Reset },
        { "an answer that was not asked for", Response, 0, 0, Reset },
        { "no operation", 0, 0, 0, Reset },
        { "an operation that there is not", 8, 0, 0, Reset },
        { "the last operation there can be", 0xFFFF, 0, 0, Reset },
        { "credit", CreditUpdate, 0, 0, Nothing },
        { "credit asked for", CreditRequest, 0, 0, CreditUpdate },
        { "data of no bytes", Data, 0, 0, Nothing },
        { "data with flags that nobody defined", Data, 0xFFFF_FFFF, 5, Nothing },
        { "a shutdown of nothing", Shutdown, 0, 0, Nothing },
        { "a shutdown with flags that nobody defined", Shutdown, 0xFFFF_FFFC, 0, Nothing },
        { "a shutdown of receiving", Shutdown, 1, 0, Nothing },
        { "a shutdown of sending", Shutdown, 2, 0, Nothing },
        { "a shutdown of both", Shutdown, 3, 0, Reset },
        { "a shutdown of everything", Shutdown, 0xFFFF_FFFF, 0, Reset },
        { "a reset", Reset, 0, 0, Nothing },
    };

    [Theory]
    [MemberData(nameof(Established))]
    public void A_packet_of_an_established_connection(string what, ushort operation, uint flags, int bytes, int answer)
    {
        Assert.NotEmpty(what);
        Connect();
        Send(operation, flags: flags, bytes: bytes);
        if (answer != Nothing)
        {
            Assert.Equal(answer, Receive().Operation);
        }

        if (answer == Reset || operation == Reset)
        {
            Assert.Equal(0, HangsUp());
            Send(Data, bytes: 3); // to a connection that is over
            Assert.Equal(Reset, Receive().Operation);
        }
        else if (operation != Shutdown)
        {
            Send(Data, bytes: 3);
            Assert.Equal(bytes + 3, ReadExactly(bytes + 3));
        }

        AssertNothingMore();
    }

    /// <summary>Lengths that are not those of the packet: more than it brings ends its connection, less is what counts.</summary>
    [Theory]
    [InlineData(6u, 5, Reset, 0)]
    [InlineData(0x1_0000u, 5, Reset, 0)]
    [InlineData(uint.MaxValue, 5, Reset, 0)]
    [InlineData(0x8000_0000u, 5, Reset, 0)]
    [InlineData(1u, 0, Reset, 0)]
    [InlineData(4u, 5, Nothing, 4)]
    [InlineData(0u, 5, Nothing, 0)]
    [InlineData(5u, 5, Nothing, 5)]
    public void Lengths_that_lie(uint length, int bytes, int answer, int arrived)
    {
        Connect();
        Send(Data, bytes: bytes, length: length);
        if (answer == Reset)
        {
            Assert.Equal(Reset, Receive().Operation);
            Assert.Equal(0, HangsUp());
        }
        else
        {
            Assert.Equal(arrived, ReadExactly(arrived));
        }

        AssertNothingMore();
    }

    /// <summary>5.10.6.3: more data than there is credit for ends the connection; nothing piles up here.</summary>
    [Fact]
    public void Data_beyond_the_credit()
    {
        Connect();
        int sent = 0;
        Packet packet = default;
        while (packet.Operation != Reset && sent < 200)
        {
            Send(Data, bytes: 0x6000);
            sent++;
            if (TryReceive(out Packet next))
            {
                packet = next;
            }
        }

        Assert.Equal(Reset, packet.Operation);
        Assert.InRange(sent * 0x6000, 128 << 10, 2 << 20);
    }

    /// <summary>
    /// The guest's own credit: lies about what it took or can take bring it nothing beyond its buffer, and never more than a packet at
    /// once.
    /// </summary>
    [Theory]
    [InlineData(0u, 0u, 0)]
    [InlineData(1u, 0u, 1)]
    [InlineData(100u, 0u, 100)]
    [InlineData(100u, 1u, 0)] // took a byte that was never sent
    [InlineData(100u, uint.MaxValue, 99)]
    [InlineData(0u, uint.MaxValue, 0)]
    [InlineData(uint.MaxValue, 0u, 1000)]
    [InlineData(uint.MaxValue, 0x8000_0000u, 1000)]
    public void Credit_that_lies(uint buffer, uint forwarded, int given)
    {
        Connect(buffer: 0);
        _program!.Send(new byte[1000]);
        Send(CreditUpdate, buffer: buffer, forwarded: forwarded);
        int got = 0;
        for (int turn = 0; got < given; turn++)
        {
            Packet packet = Receive();
            Assert.Equal(Data, packet.Operation);
            got += packet.Bytes;
        }

        Assert.Equal(given, got);
        AssertNothingMore();
    }

    public static TheoryData<string, int, Piece[]> Shapes => new()
    {
        { "a packet of 43 bytes", 1, [new(Out, 43, false)] },
        { "a packet of one byte", 1, [new(Out, 1, false)] },
        { "a packet that the device writes", 1, [new(Out, 44, true)] },
        { "a packet in pieces that is too short", 1, [new(Out, 20, false), new(Out + 20, 23, false)] },
        { "room for 43 bytes", 0, [new(In, 43, true)] },
        { "room for a header and nothing else", 0, [new(In, 44, true)] },
        { "room that the device reads", 0, [new(In, 4096, false)] },
        { "room for one byte", 0, [new(In, 1, true)] },
    };

    [Theory]
    [MemberData(nameof(Shapes))]
    public void No_packet(string shape, int queue, Piece[] chain)
    {
        Assert.NotEmpty(shape);
        _guest.Start(); // without receive buffers
        _guest.Lay(_guest.Plans[queue].Table, 0, chain);
        _guest.Offer(queue, 0);
        _guest.Kick(queue);
        if (queue == 0)
        {
            _bench.Prompt(_guest, 0);
        }

        Assert.Contains("malformed", _guest.WaitNeedsReset(), StringComparison.Ordinal);
    }

    /// <summary>Ends in the wrong order.</summary>
    [Theory]
    [InlineData(Data)]
    [InlineData(Shutdown)]
    [InlineData(CreditUpdate)]
    public void After_its_end_of_sending(ushort operation)
    {
        Connect();
        Send(Shutdown, flags: 2);
        Assert.Equal(0, HangsUp());
        Send(operation, flags: operation == Shutdown ? 2u : 0, bytes: operation == Data ? 5 : 0);
        if (operation == Data)
        {
            Assert.Equal(Reset, Receive().Operation);
        }

        AssertNothingMore();
    }

    /// <summary>More connections than there may be: the rest is refused, and the device serves those it has.</summary>
    [Fact]
    public void Connections_without_end()
    {
        using CancellationTokenSource end = new();
        List<Socket> accepted = [];
        Thread acceptor = new(() =>
        {
            try
            {
                while (true)
                {
                    accepted.Add(_listener.Accept());
                }
            }
            catch (SocketException)
            {
            }
            catch (ObjectDisposedException)
            {
            }
        });
        acceptor.Start();
        int responses = 0, resets = 0;
        for (uint port = 0; port < 300; port++)
        {
            Send(Request, port: 1000 + port);
            Packet packet = Receive();
            responses += packet.Operation == Response ? 1 : 0;
            resets += packet.Operation == Reset ? 1 : 0;
        }

        Assert.Equal((256, 44), (responses, resets));
        _listener.Dispose();
        acceptor.Join();
        accepted.ForEach(s => s.Dispose());
    }

    /// <summary>
    /// A guest that gives no receive buffers: its packets wait once enough answers do, and nothing piles up. Then it gives some.
    /// </summary>
    [Fact]
    public void A_starved_receive_queue()
    {
        _guest.Start();
        int taken = 0;
        for (int i = 0; i < 400; i++)
        {
            VsockBench.PutHeader(_guest, Out, Data);
            if (i - taken < 15)
            {
                _guest.Post(1, new Piece(Out, 44, false));
            }

            Thread.Yield();
            for (; _guest.UsedCount(1) > 0; taken++)
            {
                _guest.WaitUsed(1);
            }
        }

        Assert.InRange(taken, 1, 300);
        Assert.False(_guest.Broken);
    }

    /// <summary>The configuration and the event queue are the device's (5.10.4, 5.10.6.7).</summary>
    [Theory]
    [InlineData(0, 8)]
    [InlineData(0, 4)]
    [InlineData(4, 4)]
    public void The_context_id_is_not_written(int offset, int length)
    {
        _guest.Port.WriteConfig(offset, new byte[] { 255, 255, 255, 255, 255, 255, 255, 255 }.AsSpan(0, length));
        byte[] cid = new byte[8];
        _guest.Port.ReadConfig(0, cid);
        Assert.Equal(VsockBench.Cid, BinaryPrimitives.ReadUInt64LittleEndian(cid));
    }

    private readonly record struct Packet(ushort Operation, ushort Type, uint Port, uint GuestPort, ulong Source, int Bytes);

    private void Start()
    {
        _guest.Start();
        for (int i = 0; i < 15; i++)
        {
            _guest.Post(0, new Piece(In + (ulong)(i * InBytes), InBytes, true));
        }
    }

    private void Connect(uint buffer = 1 << 18)
    {
        Send(Request, buffer: buffer);
        _program = _listener.Accept();
        _program.ReceiveTimeout = 20_000;
        Assert.Equal(Response, Receive().Operation);
    }

    private void Send(
        ushort operation, uint port = 10, uint hostPort = 5, uint flags = 0, int bytes = 0, uint? length = null, ushort type = 1,
        ulong source = VsockBench.Cid, ulong destination = 2, uint buffer = 1 << 18, uint forwarded = 0)
    {
        VsockBench.PutHeader(
            _guest, Out, operation, port, hostPort, length ?? (uint)bytes, type, flags, source, destination, buffer, forwarded);
        Assert.Equal(0u, bytes == 0
            ? _guest.Request(1, new Piece(Out, 44, false))
            : _guest.Request(1, new Piece(Out, 44, false), new Piece(Out + 64, (uint)bytes, false)));
    }

    private Packet Receive()
    {
        (uint head, uint written) = _guest.WaitUsed(0);
        return Take(head, written);
    }

    private bool TryReceive(out Packet packet)
    {
        bool there = _guest.UsedCount(0) > 0;
        packet = there ? Receive() : default;
        return there;
    }

    private Packet Take(uint head, uint written)
    {
        ulong at = In + (head * (ulong)InBytes);
        Span<byte> h = _guest.At(at, 44);
        Packet packet = new(BinaryPrimitives.ReadUInt16LittleEndian(h[30..]), BinaryPrimitives.ReadUInt16LittleEndian(h[28..]),
            BinaryPrimitives.ReadUInt32LittleEndian(h[16..]),
            BinaryPrimitives.ReadUInt32LittleEndian(h[20..]), BinaryPrimitives.ReadUInt64LittleEndian(h),
            (int)BinaryPrimitives.ReadUInt32LittleEndian(h[24..]));
        Assert.Equal(written, 44 + (uint)packet.Bytes);
        Assert.Equal(VsockBench.Cid, BinaryPrimitives.ReadUInt64LittleEndian(h[8..]));
        _guest.Offer(0, (int)head);
        _guest.Kick(0);
        return packet;
    }

    /// <summary>A packet that is surely answered shows that nothing else was owed.</summary>
    private void AssertNothingMore()
    {
        Send(Data, port: 99, hostPort: 98);
        Packet packet = Receive();
        Assert.Equal((Reset, 99u), (packet.Operation, packet.GuestPort));
        Assert.Equal(0, _guest.UsedCount(0));
    }

    private int HangsUp()
    {
        try
        {
            return _program!.Receive(new byte[1]);
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionReset)
        {
            return 0;
        }
    }

    private int ReadExactly(int count)
    {
        byte[] data = new byte[count];
        int done = 0;
        while (done < count)
        {
            int got = _program!.Receive(data.AsSpan(done));
            Assert.NotEqual(0, got);
            done += got;
        }

        return done;
    }
}
