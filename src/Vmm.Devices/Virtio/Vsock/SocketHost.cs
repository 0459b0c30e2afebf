using System.Globalization;
using System.Text;
using Vmm.Interop;

namespace Vmm.Devices.Virtio.Vsock;

/// <summary>
/// Unix sockets as the host's side, by the convention of other VMMs: a host program connects to PATH and writes <c>CONNECT port\n</c>, the
/// answer is <c>OK hostport\n</c> when the guest took it; the guest's connections to port N go to PATH_N. Everything on the device's queue
/// thread.
/// </summary>
internal sealed class SocketHost(UnixListener listener, string path, Func<uint, UnixStream?>? dial = null) : IVsockHost
{
    private const int MaxGreeting = 32, MaxGreetings = 16;
    private const ulong ListenerTag = 0;

    private readonly Dictionary<ulong, SocketStream> _streams = [];
    private readonly Dictionary<ulong, Greeting> _greetings = [];
    private QueueThread? _thread;
    private VsockSwitch? _switch;
    private ulong _nextId = 1;

    /// <summary>Starts polling, on the queue thread.</summary>
    public void Start(QueueThread thread, VsockSwitch packets)
    {
        _thread = thread;
        _switch = packets;
        thread.Watch(listener.Handle, PollEvents.Readable, ListenerTag);
    }

    public IVsockStream? Connect(uint hostPort)
    {
        UnixStream? socket = dial is null
            ? UnixStream.Connect(string.Create(CultureInfo.InvariantCulture, $"{path}_{hostPort}"), out _)
            : dial(hostPort);
        return socket is null ? null : Add(socket, announce: false);
    }

    public void Ready(ulong tag)
    {
        if (tag == ListenerTag)
        {
            Accept();
        }
        else if (_greetings.TryGetValue(tag >> 1, out Greeting? greeting))
        {
            Greet(tag >> 1, greeting);
        }
        else if (_streams.TryGetValue(tag >> 1, out SocketStream? stream))
        {
            stream.Polled((tag & 1) != 0);
            _switch!.Wake(stream.Connection!);
        }
    }

    public void Poll(SocketStream stream, PollEvents events) =>
        _thread!.Watch(stream.Socket, events, (stream.Id << 1) | (events == PollEvents.Writable ? 1UL : 0));

    public void Forget(SocketStream stream) => _streams.Remove(stream.Id);

    /// <summary>Closes what is not a connection yet; the switch closes the others.</summary>
    public void Stop()
    {
        foreach (Greeting greeting in _greetings.Values)
        {
            greeting.Socket.Dispose();
        }

        _greetings.Clear();
    }

    private void Accept()
    {
        while (listener.Accept() is { } socket)
        {
            if (_greetings.Count >= MaxGreetings)
            {
                ulong oldest = _greetings.Keys.Min();
                Drop(oldest, _greetings[oldest]);
            }

            ulong id = _nextId++;
            Greeting greeting = new(socket, new byte[MaxGreeting]);
            _greetings.Add(id, greeting);
            Greet(id, greeting);
        }

        _thread!.Watch(listener.Handle, PollEvents.Readable, ListenerTag);
    }

    /// <summary>Reads the first line and not a byte more: what follows is for the guest.</summary>
    private void Greet(ulong id, Greeting greeting)
    {
        Span<byte> room = greeting.Line.AsSpan(greeting.Count);
        int count = greeting.Socket.Receive(room, peek: true);
        if (count < 0)
        {
            _thread!.Watch(greeting.Socket, PollEvents.Readable, id << 1);
            return;
        }

        int end = room[..count].IndexOf((byte)'\n');
        int consumed = greeting.Socket.Receive(room[..(end < 0 ? count : end + 1)]);
        greeting.Count += Math.Max(consumed, 0);
        if (end < 0)
        {
            if (count == 0 || greeting.Count == MaxGreeting)
            {
                Drop(id, greeting);
            }
            else
            {
                _thread!.Watch(greeting.Socket, PollEvents.Readable, id << 1); // the rest of the line
            }

            return;
        }

        if (!TryParse(greeting.Line.AsSpan(0, greeting.Count - 1), out uint port))
        {
            Drop(id, greeting);
            return;
        }

        _greetings.Remove(id);
        SocketStream stream = Add(greeting.Socket, announce: true);
        if (!_switch!.Open(stream, port, out _))
        {
            stream.Close();
        }
    }

    internal static bool TryParse(ReadOnlySpan<byte> line, out uint port)
    {
        port = 0;
        return line.StartsWith("CONNECT "u8)
            && uint.TryParse(Encoding.ASCII.GetString(line[8..]), NumberStyles.None, CultureInfo.InvariantCulture, out port);
    }

    private void Drop(ulong id, Greeting greeting)
    {
        _greetings.Remove(id);
        greeting.Socket.Shutdown();
        greeting.Socket.Dispose();
    }

    private SocketStream Add(UnixStream socket, bool announce)
    {
        SocketStream stream = new(socket, this, announce) { Id = _nextId++ };
        _streams.Add(stream.Id, stream);
        return stream;
    }

    /// <summary>A host program that has not said yet where it wants to go.</summary>
    private sealed record Greeting(UnixStream Socket, byte[] Line)
    {
        public int Count { get; set; }
    }
}
