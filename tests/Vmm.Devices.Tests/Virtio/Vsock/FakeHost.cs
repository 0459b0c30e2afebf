using Vmm.Devices.Virtio.Vsock;

namespace Vmm.Devices.Tests.Virtio.Vsock;

/// <summary>A host stream in memory, with a room that limits what it takes.</summary>
internal sealed class FakeStream : IVsockStream
{
    public Queue<byte> ToGuest { get; } = new();

    public List<byte> FromGuest { get; } = [];

    public int Room { get; set; } = int.MaxValue;

    public bool Ended { get; set; }

    public bool Gone { get; set; }

    public int Closes { get; private set; }

    public bool GuestEnded { get; private set; }

    public uint? AcceptedAs { get; private set; }

    public VsockConnection? Connection { get; private set; }

    public bool IsGone => Gone;

    public void Attach(VsockConnection connection) => Connection = connection;

    public int Read(Span<byte> into)
    {
        Assert.Equal(0, Closes);
        Assert.NotEqual(0, into.Length);
        int count = 0;
        while (count < into.Length && ToGuest.TryDequeue(out byte value))
        {
            into[count++] = value;
        }

        return count > 0 ? count : Ended || Gone ? 0 : -1;
    }

    public int Write(ReadOnlySpan<byte> bytes)
    {
        Assert.Equal(0, Closes);
        Assert.NotEqual(0, bytes.Length);
        if (Gone)
        {
            return -1;
        }

        int count = Math.Min(bytes.Length, Room);
        FromGuest.AddRange(bytes[..count]);
        Room -= count;
        return count;
    }

    public void Accepted(uint hostPort) => AcceptedAs = hostPort;

    public void EndWrite() => GuestEnded = true;

    public void Close() => Closes++;
}

/// <summary>A host that listens on ports below 1000.</summary>
internal sealed class FakeHost : IVsockHost
{
    public List<FakeStream> Streams { get; } = [];

    public IVsockStream? Connect(uint hostPort)
    {
        if (hostPort >= 1000)
        {
            return null;
        }

        Streams.Add(new FakeStream());
        return Streams[^1];
    }
}
