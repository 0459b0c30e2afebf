using System.Net.Sockets;
using System.Text;
using Vmm.Devices.Virtio.Vsock;
using Vmm.Interop;

namespace Vmm.Devices.Tests.Virtio.Vsock;

/// <summary>The device with real unix sockets and a driver over its rings.</summary>
public sealed class VirtioVsockTests : IDisposable
{
    private const ulong Out = 0x200000, In = 0x400000;
    private const int InBytes = 4096;
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-vsock-").FullName;
    private readonly List<Socket> _sockets = [];
    private readonly VirtioVsock _device;
    private readonly QueueGuest _guest;

    public VirtioVsockTests()
    {
        _device = new VirtioVsock(7, SocketPath);
        _guest = new QueueGuest(_device);
        PostBuffers();
    }

    private string SocketPath => Path.Combine(_folder, "v.sock");

    public void Dispose()
    {
        foreach (Socket socket in _sockets)
        {
            socket.Dispose();
        }

        _guest.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public void A_host_program_reaches_a_port_of_the_guest_and_bytes_go_both_ways()
    {
        Socket program = ConnectTo(SocketPath);
        program.Send("CONNECT 22\nhello"u8);
        VsockHeader request = Receive(out _);
        Assert.Equal((VsockOperation.Request, 22u), (request.Operation, request.DestinationPort));
        Send(VsockOperation.Response, 22, request.SourcePort);
        Assert.Equal($"OK {request.SourcePort}\n", ReadText(program, $"OK {request.SourcePort}\n".Length));
        Assert.Equal("hello", Encoding.ASCII.GetString(ReceiveData(5)));
        Send(VsockOperation.Data, 22, request.SourcePort, data: "world"u8.ToArray());
        Assert.Equal("world", ReadText(program, 5));
        program.Dispose();
        VsockHeader end = Receive(out _);
        Assert.Equal((VsockOperation.Shutdown, 3u), (end.Operation, end.Flags));
        Send(VsockOperation.Reset, 22, request.SourcePort);
    }

    [Fact]
    public void The_line_of_a_host_program_may_come_in_pieces_and_nonsense_is_hung_up_on()
    {
        foreach (string line in (string[])
        [
            "GET / HTTP/1.1\n", "CONNECT x\n", "CONNECT 4294967296\n", "CONNECT -1\n", "CONNECT 1 2\n", new string('C', 40)
        ])
        {
            Socket wrong = ConnectTo(SocketPath);
            wrong.Send(Encoding.ASCII.GetBytes(line));
            Assert.Equal(0, ReadToEnd(wrong));
        }

        Socket slow = ConnectTo(SocketPath);
        foreach (char c in "CONNECT 4294967295\n")
        {
            slow.Send([(byte)c]);
            Thread.Sleep(1);
        }

        Assert.Equal(uint.MaxValue, Receive(out _).DestinationPort);
    }

    [Fact]
    public void A_program_of_the_guest_reaches_a_listener_of_the_host()
    {
        using Socket listener = Listen(1234);
        Send(VsockOperation.Request, 5000, 1235);
        Assert.Equal(VsockOperation.Reset, Receive(out _).Operation); // nobody there
        Send(VsockOperation.Request, 5000, 1234);
        Assert.Equal(VsockOperation.Response, Receive(out _).Operation);
        Socket program = listener.Accept();
        _sockets.Add(program);
        Send(VsockOperation.Data, 5000, 1234, data: "abc"u8.ToArray());
        Assert.Equal("abc", ReadText(program, 3));
        Send(VsockOperation.Shutdown, 5000, 1234, flags: 2);
        Assert.Equal(0, ReadToEnd(program));
        program.Send("still"u8);
        Assert.Equal("still", Encoding.ASCII.GetString(ReceiveData(5)));
        Send(VsockOperation.Shutdown, 5000, 1234, flags: 3);
        Assert.Equal(VsockOperation.Reset, Receive(out _).Operation);
    }

    [Fact]
    public void Megabytes_go_both_ways_through_slow_readers_unharmed()
    {
        const int Total = 3 << 20;
        using Socket listener = Listen(1);
        Send(VsockOperation.Request, 9, 1);
        VsockHeader last = Receive(out _);
        Socket program = listener.Accept();
        _sockets.Add(program);
        byte[] pattern = new byte[Total], back = new byte[Total];
        new Random(4).NextBytes(pattern);
        Exception? failure = null;
        Thread echo = new(() =>
        {
            try
            {
                byte[] piece = new byte[50_000];
                for (int done = 0; done < Total;)
                {
                    int count = program.Receive(piece);
                    Thread.Sleep(done % 7 == 0 ? 1 : 0);
                    program.Send(piece.AsSpan(0, count));
                    done += count;
                }
            }
            catch (SocketException e)
            {
                failure = e;
            }
        });
        echo.Start();
        uint sent = 0, received = 0;
        while (received < Total)
        {
            uint room = last.BufferBytes - (sent - last.ForwardedBytes), count = Math.Min(Math.Min(room, Total - sent), 30_000);
            if (count > 0)
            {
                Send(VsockOperation.Data, 9, 1, data: pattern[(int)sent..(int)(sent + count)], forwarded: received);
                sent += count;
                if (!TryReceive(out last, out byte[] early, last))
                {
                    continue;
                }

                early.CopyTo(back, (int)received);
                received += (uint)early.Length;
            }
            else
            {
                last = Receive(out byte[] data);
                Assert.NotEqual(VsockOperation.Reset, last.Operation);
                data.CopyTo(back, (int)received);
                received += (uint)data.Length;
                Send(VsockOperation.CreditUpdate, 9, 1, forwarded: received);
            }
        }

        Assert.True(echo.Join(20_000));
        Assert.Null(failure);
        Assert.True(pattern.AsSpan().SequenceEqual(back));
    }

    [Fact]
    public void A_reset_hangs_up_on_everybody_and_the_device_works_again()
    {
        Socket program = ConnectTo(SocketPath);
        program.Send("CONNECT 22\n"u8);
        Send(VsockOperation.Response, 22, Receive(out _).SourcePort);
        Assert.StartsWith("OK ", ReadText(program, 5), StringComparison.Ordinal);
        _device.Reset();
        ReadToEnd(program);
        _guest.Activate();
        PostBuffers();
        ConnectTo(SocketPath).Send("CONNECT 23\n"u8);
        Assert.Equal(23u, Receive(out _).DestinationPort);
    }

    [Theory]
    [InlineData(1, 20)] // less than a header
    [InlineData(0, 44)] // a receive buffer without room for data
    public void Chains_no_packet_fits_in_ask_for_a_reset(int queue, int length)
    {
        _device.Reset();
        _guest.Activate();
        _guest.Post(0, (In, queue == 0 ? length : InBytes, true));
        Socket program = ConnectTo(SocketPath);
        program.Send("CONNECT 22\n"u8);
        if (queue == 1)
        {
            _guest.Post(1, (Out, length, false));
        }

        Assert.Contains("malformed", _guest.WaitNeedsReset(), StringComparison.Ordinal);
    }

    [Fact]
    public void A_path_in_use_is_refused_a_stale_one_is_taken_over_and_none_is_left_behind()
    {
        Assert.Throws<KernelException>(() => new VirtioVsock(8, SocketPath));
        string stale = Path.Combine(_folder, "stale");
        using (Socket dead = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified))
        {
            dead.Bind(new UnixDomainSocketEndPoint(stale)); // .NET removes the file of a socket it closes
            File.Move(stale, stale + "2");
        }

        using (VirtioVsock device = new(8, stale + "2"))
        {
            byte[] config = new byte[12];
            device.ReadConfig(0, config);
            Assert.Equal([8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], config);
        }

        Assert.False(File.Exists(stale + "2"));
        Assert.Throws<KernelException>(() => new VirtioVsock(8, new string('x', 200)));
        Assert.Throws<ArgumentOutOfRangeException>(() => new VirtioVsock(2, stale));
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Nonsense_in_the_queues_never_hangs_or_throws()
    {
        using VirtioVsock device = new(9, Path.Combine(_folder, "fuzz"));
        using Socket listener = Listen(1, "fuzz");
        QueueFuzz.Run(device, 1910, (random, guest) =>
        {
            // Now and then a packet that is nearly right.
            VsockHeader header = new()
            {
                SourceCid = 9,
                DestinationCid = 2,
                SourcePort = (uint)random.Next(3),
                DestinationPort = 1,
                Type = 1,
                Operation = (VsockOperation)random.Next(9),
                Length = (uint)random.Next(3000),
                BufferBytes = (uint)random.Next()
            };
            header.Write(guest.Ram(QueueGuest.Data + (ulong)random.Next(1 << 15), VsockHeader.Bytes));
            if (random.Next(10) == 0)
            {
                // May not get in, or be hung up on at once: a device that waits for its reset accepts nobody.
                using UnixStream? program = UnixStream.Connect(Path.Combine(_folder, "fuzz"), out _);
                program?.Send("CONNECT 1\nxyz"u8);
            }
        });
    }

    private void PostBuffers()
    {
        for (int i = 0; i < QueueGuest.Size; i++)
        {
            _guest.Post(0, (In + ((ulong)i * InBytes), InBytes, true));
        }
    }

    private void Send(VsockOperation operation, uint guestPort, uint hostPort, uint flags = 0, byte[]? data = null, uint forwarded = 0)
    {
        VsockHeader header = new()
        {
            SourceCid = 7,
            DestinationCid = 2,
            SourcePort = guestPort,
            DestinationPort = hostPort,
            Length = (uint)(data?.Length ?? 0),
            Type = VsockHeader.Stream,
            Operation = operation,
            Flags = flags,
            BufferBytes = 100_000,
            ForwardedBytes = forwarded,
        };
        header.Write(_guest.Ram(Out, VsockHeader.Bytes));
        data?.CopyTo(_guest.Ram(Out + 100, data.Length));
        if (data is null)
        {
            _guest.Post(1, (Out, VsockHeader.Bytes, false));
        }
        else
        {
            _guest.Post(1, (Out, VsockHeader.Bytes, false), (Out + 100, data.Length, false));
        }

        _guest.WaitUsed(1);
    }

    private VsockHeader Receive(out byte[] data)
    {
        (uint head, uint written) = _guest.WaitUsed(0);
        return Taken(head, written, out data);
    }

    private bool TryReceive(out VsockHeader header, out byte[] data, VsockHeader otherwise)
    {
        (header, data) = (otherwise, []);
        if (!_guest.TryTakeUsed(0, out uint head, out uint written))
        {
            return false;
        }

        header = Taken(head, written, out data);
        return true;
    }

    private VsockHeader Taken(uint head, uint written, out byte[] data)
    {
        ulong at = In + (head * (ulong)InBytes);
        VsockHeader header = VsockHeader.Read(_guest.Ram(at, VsockHeader.Bytes));
        Assert.Equal(written, VsockHeader.Bytes + header.Length);
        data = _guest.Ram(at + VsockHeader.Bytes, (int)header.Length).ToArray();
        _guest.Post(0, (at, InBytes, true));
        return header;
    }

    private byte[] ReceiveData(int count)
    {
        List<byte> all = [];
        while (all.Count < count)
        {
            VsockHeader header = Receive(out byte[] data);
            Assert.Equal(VsockOperation.Data, header.Operation);
            all.AddRange(data);
        }

        return [.. all];
    }

    private Socket ConnectTo(string path)
    {
        Socket socket =
            new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = 20_000, SendTimeout = 20_000 };
        _sockets.Add(socket);
        socket.Connect(new UnixDomainSocketEndPoint(path));
        return socket;
    }

    private Socket Listen(int port, string name = "v.sock")
    {
        Socket listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(Path.Combine(_folder, $"{name}_{port}")));
        listener.Listen();
        return listener;
    }

    private static string ReadText(Socket socket, int count)
    {
        byte[] text = new byte[count];
        for (int done = 0; done < count;)
        {
            int got = socket.Receive(text.AsSpan(done));
            Assert.NotEqual(0, got);
            done += got;
        }

        return Encoding.ASCII.GetString(text);
    }

    /// <summary>Bytes until the far side hangs up, by end of stream or by a reset because it had unread input.</summary>
    private static int ReadToEnd(Socket socket)
    {
        byte[] rest = new byte[256];
        int total = 0;
        try
        {
            for (int count; (count = socket.Receive(rest)) > 0;)
            {
                total += count;
            }
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionReset)
        {
            return total;
        }

        return total;
    }
}
