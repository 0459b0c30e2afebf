using System.Buffers.Binary;
using System.Net.Sockets;

namespace Vmm.Storage.Tests.NbdServing;

/// <summary>A client that sends what a test wants, byte by byte as the protocol has it (NetworkBlockDevice/nbd, doc/proto.md).</summary>
internal sealed class RawClient : IDisposable
{
    private const int Patience = 60_000;

    private readonly Socket _socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);

    public RawClient(string path)
    {
        _socket.ReceiveTimeout = _socket.SendTimeout = Patience;
        _socket.Connect(new UnixDomainSocketEndPoint(path));
    }

    /// <summary>One that is through with the negotiation.</summary>
    public static RawClient Greeted(string path)
    {
        RawClient client = new(path);
        client.Greet();
        client.SendOption(7, [0, 0, 0, 0, 0, 0]);
        while (client.TakeOptionReply().Kind != 1)
        {
        }

        return client;
    }

    public static byte[] Request(ushort kind, ulong cookie, ulong offset = 0, uint length = 0, ushort flags = 0)
    {
        byte[] bytes = new byte[28];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, 0x25609513);
        BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(4), flags);
        BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(6), kind);
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(8), cookie);
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(16), offset);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(24), length);
        return bytes;
    }

    public void Greet()
    {
        Assert.Equal([.. "NBDMAGICIHAVEOPT"u8, 0, 3], Take(18));
        Send([0, 0, 0, 3]);
    }

    public void SendOption(uint option, byte[] data, uint? claims = null)
    {
        byte[] head = new byte[16];
        "IHAVEOPT"u8.CopyTo(head);
        BinaryPrimitives.WriteUInt32BigEndian(head.AsSpan(8), option);
        BinaryPrimitives.WriteUInt32BigEndian(head.AsSpan(12), claims ?? (uint)data.Length);
        Send([.. head, .. data]);
    }

    public (uint Option, uint Kind, byte[] Data) TakeOptionReply()
    {
        byte[] head = Take(20);
        Assert.Equal(0x3e889045565a9u, BinaryPrimitives.ReadUInt64BigEndian(head));
        return (BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(8)), BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(12)),
            Take(BinaryPrimitives.ReadInt32BigEndian(head.AsSpan(16))));
    }

    public (uint Error, ulong Cookie) TakeReply()
    {
        byte[] head = Take(16);
        Assert.Equal(0x67446698u, BinaryPrimitives.ReadUInt32BigEndian(head));
        return (BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(4)), BinaryPrimitives.ReadUInt64BigEndian(head.AsSpan(8)));
    }

    public void Send(byte[] bytes)
    {
        for (int sent = 0; sent < bytes.Length;)
        {
            sent += _socket.Send(bytes, sent, bytes.Length - sent, SocketFlags.None);
        }
    }

    /// <summary>Sends as much as is taken until it is full; how much.</summary>
    public int SendWhatFits(byte[] bytes)
    {
        _socket.Blocking = false;
        int sent = _socket.Send(bytes, 0, bytes.Length, SocketFlags.None, out _);
        _socket.Blocking = true;
        return Math.Max(0, sent);
    }

    public byte[] Take(int length)
    {
        byte[] bytes = new byte[length];
        for (int have = 0; have < length;)
        {
            int got = _socket.Receive(bytes, have, length - have, SocketFlags.None);
            Assert.True(got > 0, "the server has closed the connection");
            have += got;
        }

        return bytes;
    }

    /// <summary>The server closes the connection, whatever it says before.</summary>
    public void AwaitEnd()
    {
        byte[] bytes = new byte[4096];
        try
        {
            while (_socket.Receive(bytes) > 0)
            {
            }
        }
        catch (SocketException cause) when (cause.SocketErrorCode is SocketError.ConnectionReset or SocketError.Shutdown)
        {
            // with input that nobody read
        }
    }

    public void Dispose() => _socket.Dispose();
}
