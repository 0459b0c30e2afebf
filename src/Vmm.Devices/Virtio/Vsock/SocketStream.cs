using Vmm.Interop;

namespace Vmm.Devices.Virtio.Vsock;

/// <summary>A unix socket as the host's end of a connection; asks to be polled when it could do nothing.</summary>
internal sealed class SocketStream(UnixStream socket, SocketHost owner, bool announce) : IVsockStream
{
    private VsockConnection? _connection;
    private bool _pollsRead;
    private bool _pollsWrite;
    private bool _ended;
    private bool _closed;

    /// <summary>Number of the stream in poll tags.</summary>
    public ulong Id { get; init; }

    public UnixStream Socket => socket;

    public VsockConnection? Connection => _connection;

    public bool IsGone => socket.IsPeerGone;

    public void Attach(VsockConnection connection) => _connection = connection;

    public int Read(Span<byte> into)
    {
        int count = socket.Receive(into);
        if (count < 0 && !_pollsRead)
        {
            _pollsRead = true;
            owner.Poll(this, PollEvents.Readable);
        }

        return count;
    }

    public int Write(ReadOnlySpan<byte> bytes)
    {
        int count = socket.Send(bytes);
        if (count >= 0 && count < bytes.Length && !_pollsWrite)
        {
            _pollsWrite = true;
            owner.Poll(this, PollEvents.Writable);
        }

        return count;
    }

    /// <summary>The programs' convention of other VMMs: one line tells that the guest took the connection.</summary>
    public void Accepted(uint hostPort)
    {
        if (announce)
        {
            socket.Send(System.Text.Encoding.ASCII.GetBytes($"OK {hostPort}\n")); // an empty socket has room for it
        }
    }

    public void EndWrite()
    {
        if (!_ended)
        {
            _ended = true;
            socket.EndSend();
        }
    }

    /// <summary>A poll is over.</summary>
    public void Polled(bool write)
    {
        if (write)
        {
            _pollsWrite = false;
        }
        else
        {
            _pollsRead = false;
        }
    }

    public void Close()
    {
        if (!_closed)
        {
            _closed = true;
            owner.Forget(this);
            socket.Shutdown(); // ends the polls that io_uring holds the socket by
            socket.Dispose();
        }
    }
}
