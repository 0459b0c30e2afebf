using System.Diagnostics.CodeAnalysis;

namespace Vmm.Devices.Virtio.Vsock;

/// <summary>
/// The packet side of a socket device (virtio 1.2 section 5.10.6) as a pure state machine: packets of the guest go in, packets for it come
/// out, streams of the host hang on it. No thread, no socket, no queue. Everything is bounded, whatever the guest sends.
/// </summary>
internal sealed class VsockSwitch(ulong guestCid, IVsockHost host, int maxConnections = VsockSwitch.DefaultConnections)
{
    /// <summary>The host's context id, 5.10.4.</summary>
    public const ulong HostCid = 2;

    /// <summary>Most connections at a time.</summary>
    public const int DefaultConnections = 256;

    /// <summary>Data bytes of one packet, as Linux limits them.</summary>
    public const int MaxData = 64 << 10;

    /// <summary>Resets that wait for room in the receive queue.</summary>
    public const int MaxResets = 256;

    private const uint FirstEphemeralPort = 1u << 30;

    private readonly Dictionary<(uint Guest, uint Host), VsockConnection> _connections = [];
    private readonly Queue<VsockConnection> _work = new();
    private readonly Queue<VsockHeader> _resets = new(MaxResets);
    private readonly VsockPackets _packets = new(guestCid);
    private uint _nextPort = FirstEphemeralPort;

    /// <summary>Connections there are.</summary>
    public int Count => _connections.Count;

    /// <summary>False while so many answers wait that no more packets are to be taken from the guest.</summary>
    public bool CanTake => _resets.Count < MaxResets && _work.Count < 2 * maxConnections;

    /// <summary>There may be a packet for the guest. Looking for it settles whether there is.</summary>
    public bool HasWork => _resets.Count > 0 || _work.Count > 0;

    /// <summary>A host program wants the guest's <paramref name="guestPort"/>. False when there is no room.</summary>
    public bool Open(IVsockStream stream, uint guestPort, [NotNullWhen(true)] out VsockConnection? connection)
    {
        connection = null;
        if (IsFull())
        {
            return false;
        }

        uint port = _nextPort;
        while (_connections.ContainsKey((guestPort, port)))
        {
            port = port == uint.MaxValue - 1 ? FirstEphemeralPort : port + 1;
        }

        _nextPort = port == uint.MaxValue - 1 ? FirstEphemeralPort : port + 1;
        connection = new VsockConnection(guestPort, port, stream);
        _connections.Add((guestPort, port), connection);
        stream.Attach(connection);
        Owe(connection, VsockDue.Request);
        return true;
    }

    /// <summary>The stream of a connection can read or write again, or has ended.</summary>
    public void Wake(VsockConnection connection)
    {
        if (!connection.Closed)
        {
            Enqueue(connection);
        }
    }

    /// <summary>A packet of the guest; <paramref name="data"/> is exactly what its header announces.</summary>
    public void FromGuest(in VsockHeader header, ReadOnlySpan<byte> data)
    {
        // 5.10.6.1, device: packets with another source are dropped; nobody else lives behind this device.
        if (header.SourceCid != guestCid)
        {
            return;
        }

        _connections.TryGetValue((header.SourcePort, header.DestinationPort), out VsockConnection? connection);
        if (header.DestinationCid != HostCid || header.Type != VsockHeader.Stream)
        {
            Refuse(header);
            return;
        }

        if (header.Operation == VsockOperation.Request)
        {
            Request(header, connection);
            return;
        }

        if (connection is null)
        {
            Refuse(header);
            return;
        }

        if (connection.Closed)
        {
            if (header.Operation == VsockOperation.Reset)
            {
                Remove(connection);
            }

            return; // its reset is on the way
        }

        connection.TakeCredit(header);
        if (!Apply(connection, header, data))
        {
            Abort(connection);
        }
        else
        {
            Enqueue(connection); // its credit may let data go
        }
    }

    /// <summary>
    /// The next packet for the guest; its data is read into <paramref name="data"/>, which is what the driver's buffer holds.
    /// </summary>
    public bool TryNext(Span<byte> data, out VsockHeader header)
    {
        if (_resets.TryDequeue(out header))
        {
            return true;
        }

        // Each connection once, from the front: what cannot send now is taken off and comes back by an event.
        while (_work.TryDequeue(out VsockConnection? connection))
        {
            connection.Queued = false;
            if (TryNext(connection, data, out header))
            {
                if (!connection.Closed || connection.Due != VsockDue.None)
                {
                    Enqueue(connection); // behind the others
                }

                return true;
            }
        }

        header = default;
        return false;
    }

    /// <summary>The driver reset the device: all connections are over.</summary>
    public void Reset()
    {
        foreach (VsockConnection connection in _connections.Values)
        {
            if (!connection.Closed)
            {
                connection.Closed = true;
                connection.Stream.Close();
            }
        }

        _connections.Clear();
        _work.Clear();
        _resets.Clear();
    }

    private void Request(in VsockHeader header, VsockConnection? existing)
    {
        if (existing is not null)
        {
            Abort(existing); // a second request for a connection that lives
            return;
        }

        if (IsFull() || host.Connect(header.DestinationPort) is not { } stream)
        {
            Refuse(header);
            return;
        }

        VsockConnection connection = new(header.SourcePort, header.DestinationPort, stream) { Established = true };
        connection.TakeCredit(header);
        _connections.Add((header.SourcePort, header.DestinationPort), connection);
        stream.Attach(connection);
        Owe(connection, VsockDue.Response);
    }

    /// <summary>No room for one more. Connections that only wait for the guest to admit their end are then ended without it.</summary>
    private bool IsFull()
    {
        if (_connections.Count < maxConnections)
        {
            return false;
        }

        foreach (VsockConnection connection in _connections.Values)
        {
            if (connection.HostEnded == VsockShutdown.Both)
            {
                Abort(connection);
            }
        }

        return true;
    }

    /// <summary>What a packet does to its connection; false when it breaks the rules.</summary>
    private bool Apply(VsockConnection connection, in VsockHeader header, ReadOnlySpan<byte> data)
    {
        switch (header.Operation)
        {
            case VsockOperation.Response when !connection.Established && (connection.Due & VsockDue.Request) == 0:
                connection.Established = true;
                connection.Stream.Accepted(connection.HostPort);
                return true;
            case VsockOperation.Reset:
                Remove(connection);
                return true;
            case VsockOperation.Data when connection.Established && (connection.GuestEnded & VsockShutdown.WillNotSend) == 0:
                return connection.Receive(data);
            case VsockOperation.CreditUpdate when connection.Established:
                return true;
            case VsockOperation.CreditRequest when connection.Established:
                Owe(connection, VsockDue.Credit);
                return true;
            case VsockOperation.Shutdown when connection.Established:
                connection.GuestEnded |= (VsockShutdown)header.Flags & VsockShutdown.Both;
                return true;
            default:
                return false;
        }
    }

    private bool TryNext(VsockConnection connection, Span<byte> data, out VsockHeader header)
    {
        header = default;
        if (!connection.Closed)
        {
            Advance(connection);
        }

        VsockDue due = connection.Due; // after Advance, which may have ended it
        if ((due & VsockDue.Reset) != 0)
        {
            connection.Due = VsockDue.None;
            _connections.Remove((connection.GuestPort, connection.HostPort));
            header = _packets.Header(connection, VsockOperation.Reset);
            return true;
        }

        if (connection.Closed)
        {
            return false;
        }

        if ((due & (VsockDue.Request | VsockDue.Response)) != 0)
        {
            connection.Due &= ~(VsockDue.Request | VsockDue.Response);
            header = _packets.Header(connection, (due & VsockDue.Request) != 0 ? VsockOperation.Request : VsockOperation.Response);
            return true;
        }

        return connection.Established && (_packets.TryData(connection, data, out header) || _packets.TryControl(connection, out header));
    }

    /// <summary>Moves bytes to the host and finds out what that means for the connection.</summary>
    private void Advance(VsockConnection connection)
    {
        if (!connection.Established)
        {
            return;
        }

        if (!connection.Flush())
        {
            Abort(connection); // the host program is gone with data unread
            return;
        }

        if (connection.Buffered == 0 && (connection.GuestEnded & VsockShutdown.WillNotSend) != 0)
        {
            if ((connection.GuestEnded & VsockShutdown.WillNotReceive) != 0)
            {
                Abort(connection); // 5.10.6.6: a shutdown of both is answered by a reset when everything is delivered
                return;
            }

            connection.Stream.EndWrite();
        }

        if (connection.HostEnded == VsockShutdown.WillNotSend && connection.Stream.IsGone)
        {
            connection.HostEnded = VsockShutdown.Both;
            connection.Due |= VsockDue.Shutdown;
        }

        if (connection.OwesCredit)
        {
            connection.Due |= VsockDue.Credit;
        }
    }

    private void Owe(VsockConnection connection, VsockDue due)
    {
        connection.Due |= due;
        Enqueue(connection);
    }

    private void Enqueue(VsockConnection connection)
    {
        if (!connection.Queued && (!connection.Closed || connection.Due != VsockDue.None))
        {
            connection.Queued = true;
            _work.Enqueue(connection);
        }
    }

    /// <summary>Ends a connection at once; the guest gets a reset. Its place is taken until that is sent.</summary>
    private void Abort(VsockConnection connection)
    {
        if (!connection.Closed)
        {
            connection.Closed = true;
            connection.Stream.Close();
        }

        Owe(connection, VsockDue.Reset);
    }

    /// <summary>The guest reset the connection: no answer.</summary>
    private void Remove(VsockConnection connection)
    {
        _connections.Remove((connection.GuestPort, connection.HostPort));
        connection.Due = VsockDue.None;
        if (!connection.Closed)
        {
            connection.Closed = true;
            connection.Stream.Close();
        }
    }

    /// <summary>5.10.6.1: a packet that belongs to nothing is answered by a reset, a reset by nothing.</summary>
    private void Refuse(in VsockHeader header)
    {
        if (header.Operation != VsockOperation.Reset && _resets.Count < MaxResets)
        {
            _resets.Enqueue(new VsockHeader
            {
                SourceCid = header.DestinationCid,
                DestinationCid = guestCid,
                SourcePort = header.DestinationPort,
                DestinationPort = header.SourcePort,
                Type = header.Type, // its own, also an unknown one: so the sender can tell whose reset it is
                Operation = VsockOperation.Reset,
            });
        }
    }
}
