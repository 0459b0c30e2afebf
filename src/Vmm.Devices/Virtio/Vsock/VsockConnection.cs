namespace Vmm.Devices.Virtio.Vsock;

/// <summary>Packets that a connection owes the guest; each at most once, so nothing can pile up.</summary>
[Flags]
internal enum VsockDue
{
    None = 0,
    Request = 1,
    Response = 2,
    Credit = 4,
    Shutdown = 8,
    Reset = 16,
}

/// <summary>One stream connection with its credit (virtio 1.2 section 5.10.6.3). Counters run freely and wrap.</summary>
internal sealed class VsockConnection(uint guestPort, uint hostPort, IVsockStream stream)
{
    /// <summary>Bytes of the guest we keep for a host program that does not read: the credit it gets.</summary>
    public const int BufferBytes = 128 << 10;

    private byte[]? _buffer;
    private int _start;
    private int _count;
    private uint _received;
    private uint _forwarded;
    private uint _forwardedTold;
    private uint _sent;
    private uint _peerBuffer;
    private uint _peerForwarded;

    public uint GuestPort => guestPort;

    public uint HostPort => hostPort;

    public IVsockStream Stream => stream;

    public VsockDue Due { get; set; }

    /// <summary>In the switch's list of connections to look at.</summary>
    public bool Queued { get; set; }

    /// <summary>Both sides agreed; before that only the answer to our request may come.</summary>
    public bool Established { get; set; }

    /// <summary>What the guest said it does no more.</summary>
    public VsockShutdown GuestEnded { get; set; }

    /// <summary>What we told the guest, or will with the next shutdown packet, that the host does no more.</summary>
    public VsockShutdown HostEnded { get; set; }

    /// <summary>Nothing of the connection is left but the packets due.</summary>
    public bool Closed { get; set; }

    /// <summary>Bytes of the guest that the host program has not taken yet.</summary>
    public int Buffered => _count;

    public uint Forwarded => _forwarded;

    /// <summary>Bytes the guest has room for. A guest that lies about what it took gets nothing, never more than its buffer.</summary>
    public uint PeerRoom
    {
        get
        {
            uint outstanding = unchecked(_sent - _peerForwarded);
            return outstanding < _peerBuffer ? _peerBuffer - outstanding : 0;
        }
    }

    /// <summary>The guest may believe that its credit is nearly used up.</summary>
    public bool OwesCredit => unchecked(_received - _forwardedTold) > BufferBytes / 2 && _forwarded != _forwardedTold;

    /// <summary>Every packet of the guest carries its credit.</summary>
    public void TakeCredit(in VsockHeader header)
    {
        _peerBuffer = header.BufferBytes;
        _peerForwarded = header.ForwardedBytes;
    }

    /// <summary>Every packet to the guest carries ours.</summary>
    public void CreditTold() => _forwardedTold = _forwarded;

    public void CountSent(int bytes) => _sent = unchecked(_sent + (uint)bytes);

    /// <summary>Takes data of the guest; false when it is more than its credit.</summary>
    public bool Receive(ReadOnlySpan<byte> data)
    {
        if (data.Length > BufferBytes - _count)
        {
            return false;
        }

        if (data.Length == 0)
        {
            return true;
        }

        _received = unchecked(_received + (uint)data.Length);
        if (_count == 0)
        {
            int taken = Math.Max(stream.Write(data), 0);
            _forwarded = unchecked(_forwarded + (uint)taken);
            data = data[taken..];
        }

        if (data.Length > 0)
        {
            _buffer ??= new byte[BufferBytes];
            int end = (_start + _count) % BufferBytes, first = Math.Min(data.Length, BufferBytes - end);
            data[..first].CopyTo(_buffer.AsSpan(end));
            data[first..].CopyTo(_buffer);
            _count += data.Length;
        }

        return true;
    }

    /// <summary>Gives what is buffered to the host; false when nobody reads it any more.</summary>
    public bool Flush()
    {
        while (_count > 0)
        {
            int taken = stream.Write(_buffer.AsSpan(_start, Math.Min(_count, BufferBytes - _start)));
            if (taken <= 0)
            {
                return taken == 0;
            }

            _forwarded = unchecked(_forwarded + (uint)taken);
            _start = (_start + taken) % BufferBytes;
            _count -= taken;
        }

        return true;
    }
}
