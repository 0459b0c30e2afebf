using System.Buffers.Binary;
using System.Net.Sockets;

namespace Vmm.Storage.Tests.Nbd;

/// <summary>What a command asks a lying server for.</summary>
internal readonly record struct NbdAsk(ushort Flags, ushort Type, ulong Cookie, ulong Offset, uint Length);

/// <summary>An NBD server that says what a test wants, byte for byte. Each connection has a thread.</summary>
internal sealed class LyingServer : IDisposable
{
    private const uint Reply = 0x67446698, Chunk = 0x668e33ef;

    private readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly List<Socket> _connections = [];

    public LyingServer()
    {
        _listener.Bind(new UnixDomainSocketEndPoint(Path));
        _listener.Listen(64);
        new Thread(Accept) { IsBackground = true }.Start();
    }

    public string Path { get; } = System.IO.Path.Combine(System.IO.Path.GetTempPath(), "nbd-lies-" + Guid.NewGuid().ToString("N")[..12]);

    /// <summary>Sends what comes before the handshake, in place of it; null is the handshake.</summary>
    public Func<Stream, bool>? Greets { get; init; }

    /// <summary>The size that it claims.</summary>
    public ulong Size { get; init; } = 1 << 20;

    /// <summary>Minimum, preferred and maximum block; null: it does not tell.</summary>
    public (uint, uint, uint)? Blocks { get; init; }

    /// <summary>Answers a command; false closes the connection.</summary>
    public Func<Stream, NbdAsk, bool> Answers { get; init; } = (stream, ask) =>
        Simple(stream, ask.Cookie, 0, ask.Type == 0 ? ask.Length : 0);

    /// <summary>Connections that came.</summary>
    public int Connections { get; private set; }

    /// <summary>A simple reply.</summary>
    public static bool Simple(Stream stream, ulong cookie, uint error, uint zeros, uint magic = Reply)
    {
        byte[] bytes = new byte[16 + zeros];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, magic);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(4), error);
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(8), cookie);
        stream.Write(bytes);
        return true;
    }

    /// <summary>A chunk of a structured reply; <paramref name="claims"/> is the length that its header says.</summary>
    public static bool Structured(Stream stream, ulong cookie, ushort flags, ushort type, byte[] payload, uint? claims = null)
    {
        byte[] bytes = new byte[20 + payload.Length];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, Chunk);
        BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(4), flags);
        BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(6), type);
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(8), cookie);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(16), claims ?? (uint)payload.Length);
        payload.CopyTo(bytes, 20);
        stream.Write(bytes);
        return true;
    }

    /// <summary>The reply to an option.</summary>
    public static void Option(Stream stream, uint option, uint type, byte[] payload, uint? claims = null)
    {
        byte[] bytes = new byte[20 + payload.Length];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, 0x3e889045565a9);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(8), option);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(12), type);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(16), claims ?? (uint)payload.Length);
        payload.CopyTo(bytes, 20);
        stream.Write(bytes);
    }

    public static byte[] Numbers(params ulong[] numbers) => [.. numbers.SelectMany(Big)];

    public static byte[] Big(ulong number)
    {
        byte[] bytes = new byte[8];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, number);
        return bytes;
    }

    public static byte[] Big(uint number) => Big((ulong)number)[4..];

    public static byte[] Big(ushort number) => Big((ulong)number)[6..];

    public void Dispose()
    {
        _listener.Dispose();
        lock (_connections)
        {
            _connections.ForEach(connection => connection.Dispose());
        }

        File.Delete(Path);
    }

    private void Accept()
    {
        try
        {
            while (true)
            {
                Socket connection = _listener.Accept();
                lock (_connections)
                {
                    Connections++;
                    _connections.Add(connection);
                }

                new Thread(() => Serve(connection)) { IsBackground = true }.Start();
            }
        }
        catch (Exception cause) when (cause is SocketException or ObjectDisposedException)
        {
            // the test is over
        }
    }

    private void Serve(Socket connection)
    {
        try
        {
            using NetworkStream stream = new(connection, ownsSocket: true);
            if (Greets is { } greets ? greets(stream) : Greet(stream))
            {
                while (Answers(stream, Take(stream)))
                {
                }
            }
        }
        catch (Exception cause) when (cause is IOException or ObjectDisposedException or SocketException)
        {
            // the client closed it
        }
    }

    private static NbdAsk Take(Stream stream)
    {
        byte[] bytes = new byte[28];
        stream.ReadExactly(bytes);
        NbdAsk ask = new(BinaryPrimitives.ReadUInt16BigEndian(bytes.AsSpan(4)), BinaryPrimitives.ReadUInt16BigEndian(bytes.AsSpan(6)),
            BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(8)), BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(16)),
            BinaryPrimitives.ReadUInt32BigEndian(bytes.AsSpan(24)));
        if (ask.Type == 1)
        {
            stream.ReadExactly(new byte[ask.Length]);
        }

        return ask;
    }

    /// <summary>The handshake, with what it claims; true when commands come next.</summary>
    public bool Greet(Stream stream)
    {
        stream.Write([.. "NBDMAGICIHAVEOPT"u8, 0, 3]);
        stream.ReadExactly(new byte[4]);
        while (true)
        {
            byte[] head = new byte[16];
            stream.ReadExactly(head);
            uint option = BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(8));
            stream.ReadExactly(new byte[BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(12))]);
            switch (option)
            {
                case 8: // structured replies
                    Option(stream, option, 1, []); // nobody asks for them
                    break;
                case 7: // go
                    const ushort flags = 1 | 4 | 8 | 32 | 64; // flush, FUA, trim, zeroes
                    Option(stream, option, 3, [.. Big((ushort)0), .. Big(Size), .. Big(flags)]);
                    if (Blocks is (uint least, uint best, uint most))
                    {
                        Option(stream, option, 3, [.. Big((ushort)3), .. Big(least), .. Big(best), .. Big(most)]);
                    }

                    Option(stream, option, 1, []);
                    return true;
                default:
                    Option(stream, option, 0x80000001, []);
                    break;
            }
        }
    }
}
