namespace Vmm.Devices.Virtio.Vsock;

/// <summary>
/// The host's end of one connection, as <see cref="VsockSwitch"/> sees it: a byte stream that never blocks. Calls come from one thread.
/// When a call could do nothing, the stream makes the switch look again (<see cref="VsockSwitch.Wake"/>) once it could.
/// </summary>
internal interface IVsockStream
{
    /// <summary>Told first: the connection to name in <see cref="VsockSwitch.Wake"/>.</summary>
    void Attach(VsockConnection connection);

    /// <summary>Takes bytes for the guest: more than 0, 0 at the end of the stream, or -1 when there is nothing now.</summary>
    int Read(Span<byte> into);

    /// <summary>Gives bytes of the guest: how many were taken, 0 when none can be now, or -1 when nobody reads them any more.</summary>
    int Write(ReadOnlySpan<byte> bytes);

    /// <summary>The far side is gone for good, and did not only end what it sends. Asked once <see cref="Read"/> has answered 0.</summary>
    bool IsGone { get; }

    /// <summary>The guest took a connection that the host asked for; it is known as this host port.</summary>
    void Accepted(uint hostPort);

    /// <summary>The guest sends no more; may be told again.</summary>
    void EndWrite();

    /// <summary>Over, for whatever reason; no call follows.</summary>
    void Close();
}

/// <summary>Where connections of the guest go.</summary>
internal interface IVsockHost
{
    /// <summary>A stream to whoever listens at a host port; null when nobody does.</summary>
    IVsockStream? Connect(uint hostPort);
}
