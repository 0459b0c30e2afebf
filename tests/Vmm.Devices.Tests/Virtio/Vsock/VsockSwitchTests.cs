using Vmm.Devices.Virtio.Vsock;

namespace Vmm.Devices.Tests.Virtio.Vsock;

public sealed class VsockSwitchTests
{
    private const ulong Cid = 7;
    private readonly FakeHost _host = new();
    private readonly VsockSwitch _switch;
    private readonly byte[] _data = new byte[VsockSwitch.MaxData];

    public VsockSwitchTests() => _switch = new VsockSwitch(Cid, _host, maxConnections: 8);

    [Fact]
    public void A_connection_of_the_guest_is_answered_carries_data_and_ends()
    {
        FakeStream stream = Connect(5000, 80);
        Send(Packet(VsockOperation.Data), [1, 2, 3]);
        Assert.Equal([1, 2, 3], stream.FromGuest);
        stream.ToGuest.Enqueue(9);
        _switch.Wake(stream.Connection!);
        VsockHeader data = Next();
        Assert.Equal((VsockOperation.Data, 1u, 3u, 9), (data.Operation, data.Length, data.ForwardedBytes, _data[0]));
        Send(Packet(VsockOperation.Shutdown) with { Flags = 3 });
        Assert.Equal(VsockOperation.Reset, Next().Operation);
        Assert.Equal((1, 0), (stream.Closes, _switch.Count));
        Nothing();
    }

    [Fact]
    public void A_connection_of_the_host_waits_for_the_guests_answer()
    {
        FakeStream stream = new();
        stream.ToGuest.Enqueue(1);
        Assert.True(_switch.Open(stream, 22, out VsockConnection? connection));
        VsockHeader request = Next();
        Assert.Equal(
            (VsockOperation.Request, 22u, VsockSwitch.HostCid, Cid),
            (request.Operation, request.DestinationPort, request.SourceCid, request.DestinationCid));
        Nothing();
        Send(Packet(VsockOperation.Response, 22, request.SourcePort));
        Assert.Equal(request.SourcePort, stream.AcceptedAs);
        Assert.Equal(VsockOperation.Data, Next().Operation);
        Assert.True(connection.Established);
        Send(Packet(VsockOperation.Reset, 22, request.SourcePort));
        Assert.Equal((1, 0), (stream.Closes, _switch.Count));
        Nothing();
    }

    [Theory]
    [InlineData((ushort)0)]
    [InlineData((ushort)2)] // SEQPACKET, not offered
    [InlineData((ushort)77)]
    public void The_reset_of_an_unknown_type_is_of_that_type(ushort type)
    {
        Send(Packet(VsockOperation.Request) with { Type = type });
        VsockHeader reset = Next();
        Assert.Equal((VsockOperation.Reset, type), (reset.Operation, reset.Type));
        Nothing();
    }

    [Fact]
    public void A_guest_that_refuses_closes_the_hosts_stream()
    {
        FakeStream stream = new();
        _switch.Open(stream, 22, out _);
        Send(Packet(VsockOperation.Reset, 22, Next().SourcePort));
        Assert.Equal((1, null, 0), (stream.Closes, stream.AcceptedAs, _switch.Count));
    }

    [Theory]
    [InlineData((int)VsockOperation.Invalid)]
    [InlineData((int)VsockOperation.Response)]
    [InlineData((int)VsockOperation.Shutdown)]
    [InlineData((int)VsockOperation.Data)]
    [InlineData((int)VsockOperation.CreditUpdate)]
    [InlineData((int)VsockOperation.CreditRequest)]
    [InlineData(77)]
    public void A_packet_that_belongs_to_nothing_is_answered_by_a_reset(int operation)
    {
        Send(Packet((VsockOperation)operation));
        VsockHeader reset = Next();
        Assert.Equal(
            (VsockOperation.Reset, 80u, 5000u, Cid), (reset.Operation, reset.SourcePort, reset.DestinationPort, reset.DestinationCid));
        Nothing();
    }

    [Fact]
    public void Requests_nobody_can_take_are_refused_and_resets_are_never_answered()
    {
        Send(Packet(VsockOperation.Request, 1, 1000)); // nobody listens
        Send(Packet(VsockOperation.Request) with { Type = 2 }); // not a stream
        Send(Packet(VsockOperation.Request) with { DestinationCid = 3 }); // no such neighbour
        Assert.All([Next(), Next(), Next()], p => Assert.Equal(VsockOperation.Reset, p.Operation));
        Send(Packet(VsockOperation.Reset));
        Send(Packet(VsockOperation.Reset) with { DestinationCid = 3 });
        Send(Packet(VsockOperation.Request) with { SourceCid = 8 }); // not this guest: dropped
        Nothing();
        Assert.Empty(_host.Streams);
    }

    [Theory]
    [InlineData((int)VsockOperation.Request)]
    [InlineData((int)VsockOperation.Response)]
    [InlineData((int)VsockOperation.Invalid)]
    [InlineData(8)]
    public void A_packet_out_of_order_ends_its_connection(int operation)
    {
        FakeStream stream = Connect(5000, 80);
        Send(Packet((VsockOperation)operation));
        Assert.Equal(1, stream.Closes);
        Send(Packet(VsockOperation.Data), [1]); // still on its way
        Assert.Equal(VsockOperation.Reset, Next().Operation);
        Assert.Equal(0, _switch.Count);
        Nothing();
    }

    [Fact]
    public void Data_before_the_answer_and_after_the_end_break_the_rules()
    {
        _switch.Open(new FakeStream(), 22, out _);
        Send(Packet(VsockOperation.Data, 22, Next().SourcePort), [1]);
        Assert.Equal(VsockOperation.Reset, Next().Operation);
        FakeStream stream = Connect(5000, 80);
        Send(Packet(VsockOperation.Shutdown) with { Flags = 2 });
        Nothing();
        Assert.True(stream.GuestEnded);
        stream.ToGuest.Enqueue(5); // the other direction lives on
        _switch.Wake(stream.Connection!);
        Assert.Equal(VsockOperation.Data, Next().Operation);
        Send(Packet(VsockOperation.Data), [1]);
        Assert.Equal(VsockOperation.Reset, Next().Operation);
    }

    [Fact]
    public void The_guest_gets_credit_for_what_the_host_took_and_a_reset_beyond_it()
    {
        FakeStream stream = Connect(5000, 80);
        stream.Room = 0;
        Send(Packet(VsockOperation.Data), new byte[65536]);
        Send(Packet(VsockOperation.Data), new byte[65536]);
        Nothing();
        stream.Room = 70_000;
        _switch.Wake(stream.Connection!);
        VsockHeader credit = Next();
        Assert.Equal(
            (VsockOperation.CreditUpdate, 70_000u, (uint)VsockConnection.BufferBytes),
            (credit.Operation, credit.ForwardedBytes, credit.BufferBytes));
        Send(Packet(VsockOperation.CreditRequest));
        Assert.Equal(VsockOperation.CreditUpdate, Next().Operation);
        Send(Packet(VsockOperation.Data), new byte[65536]);
        Assert.Equal(0, stream.Closes);
        Send(Packet(VsockOperation.Data), new byte[5000]);
        Assert.Equal(1, stream.Closes);
        Assert.Equal(VsockOperation.Reset, Next().Operation);
        Assert.Equal(70_000, stream.FromGuest.Count);
    }

    [Fact]
    public void Data_waits_for_the_guests_credit()
    {
        FakeStream stream = Connect(5000, 80, credit: 10);
        for (int i = 0; i < 100; i++)
        {
            stream.ToGuest.Enqueue((byte)i);
        }

        _switch.Wake(stream.Connection!);
        Assert.Equal(10u, Next().Length);
        Nothing();
        Send(Packet(VsockOperation.CreditUpdate) with { BufferBytes = 10, ForwardedBytes = 4 });
        Assert.Equal(4u, Next().Length);
        Send(Packet(VsockOperation.CreditUpdate) with { BufferBytes = 10, ForwardedBytes = 1000 }); // took more than there was
        Nothing();
        Send(Packet(VsockOperation.CreditUpdate) with { BufferBytes = 0, ForwardedBytes = 14 });
        Nothing();
    }

    [Theory]
    [InlineData(false, 2u)]
    [InlineData(true, 3u)]
    public void The_end_of_the_hosts_stream_is_told_after_its_data(bool gone, uint flags)
    {
        FakeStream stream = Connect(5000, 80);
        stream.ToGuest.Enqueue(1);
        stream.Ended = true;
        stream.Gone = gone;
        _switch.Wake(stream.Connection!);
        Assert.Equal(VsockOperation.Data, Next().Operation);
        VsockHeader end = Next();
        Assert.Equal((VsockOperation.Shutdown, flags), (end.Operation, end.Flags));
        Nothing();
        stream.Gone = true; // whoever only ended its sending may go later
        _switch.Wake(stream.Connection!);
        Assert.Equal(gone ? 0u : 3u, _switch.TryNext(_data, out VsockHeader later) ? later.Flags : 0u);
        Send(Packet(VsockOperation.Data), [1]);
        Assert.Equal(VsockOperation.Reset, Next().Operation);
        Assert.Equal(1, stream.Closes);
    }

    [Fact]
    public void A_full_table_refuses_and_makes_room_from_connections_that_ended()
    {
        for (uint i = 0; i < 8; i++)
        {
            Connect(5000 + i, 80);
        }

        Assert.False(_switch.Open(new FakeStream(), 1, out _));
        Send(Packet(VsockOperation.Request, 6000, 80));
        Assert.Equal(VsockOperation.Reset, Next().Operation);
        FakeStream first = _host.Streams[0];
        first.Ended = first.Gone = true;
        _switch.Wake(first.Connection!);
        Assert.Equal(VsockOperation.Shutdown, Next().Operation); // and the guest says nothing
        Send(Packet(VsockOperation.Request, 6000, 80));
        Assert.All([Next(), Next()], p => Assert.Equal(VsockOperation.Reset, p.Operation));
        Connect(6000, 80);
    }

    [Fact]
    public void A_guest_that_takes_no_answers_is_not_listened_to_for_ever()
    {
        int taken = 0;
        for (; _switch.CanTake && taken < 100_000; taken += 2)
        {
            Send(Packet(VsockOperation.Request));
            Send(Packet(VsockOperation.Reset));
        }

        Assert.InRange(taken, 1, 1000);
        Assert.False(_switch.TryNext(_data, out _)); // all of it came to nothing
        Assert.True(_switch.CanTake);
        for (taken = 0; _switch.CanTake && taken < 100_000; taken++)
        {
            Send(Packet(VsockOperation.Data));
        }

        Assert.Equal(VsockSwitch.MaxResets, taken);
        Assert.All(_host.Streams, s => Assert.Equal(1, s.Closes));
    }

    private FakeStream Connect(uint guestPort, uint hostPort, uint credit = 1 << 20)
    {
        Send(Packet(VsockOperation.Request, guestPort, hostPort) with { BufferBytes = credit });
        VsockHeader response = Next();
        Assert.Equal((VsockOperation.Response, hostPort, guestPort), (response.Operation, response.SourcePort, response.DestinationPort));
        Nothing();
        return _host.Streams[^1];
    }

    private static VsockHeader Packet(VsockOperation operation, uint guestPort = 5000, uint hostPort = 80) => new()
    {
        SourceCid = Cid,
        DestinationCid = VsockSwitch.HostCid,
        SourcePort = guestPort,
        DestinationPort = hostPort,
        Type = VsockHeader.Stream,
        Operation = operation,
        BufferBytes = 1 << 20,
    };

    private void Send(VsockHeader header, byte[]? data = null) =>
        _switch.FromGuest(header with { Length = (uint)(data?.Length ?? 0) }, data ?? []);

    private VsockHeader Next()
    {
        Assert.True(_switch.TryNext(_data, out VsockHeader header), "there is no packet for the guest");
        return header;
    }

    private void Nothing() => Assert.False(_switch.TryNext(_data, out VsockHeader header), header.ToString());
}
