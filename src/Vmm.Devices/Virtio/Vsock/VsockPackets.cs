namespace Vmm.Devices.Virtio.Vsock;

/// <summary>Makes the packets of connections for the guest (virtio 1.2 section 5.10.6).</summary>
/// <param name="guestCid">The guest's context id.</param>
internal sealed class VsockPackets(ulong guestCid)
{
    /// <summary>A packet with bytes of the host's stream; false when there are none, or the guest has no room.</summary>
    public bool TryData(VsockConnection connection, Span<byte> data, out VsockHeader header)
    {
        header = default;
        if ((connection.HostEnded & VsockShutdown.WillNotSend) != 0 || (connection.GuestEnded & VsockShutdown.WillNotReceive) != 0)
        {
            return false;
        }

        int room = (int)Math.Min(Math.Min(connection.PeerRoom, VsockSwitch.MaxData), (uint)data.Length);
        if (room == 0)
        {
            return false; // the guest's next packet brings credit
        }

        int count = connection.Stream.Read(data[..room]);
        if (count == 0)
        {
            connection.HostEnded |= connection.Stream.IsGone ? VsockShutdown.Both : VsockShutdown.WillNotSend;
            connection.Due |= VsockDue.Shutdown;
        }

        if (count <= 0)
        {
            return false;
        }

        connection.CountSent(count);
        header = Header(connection, VsockOperation.Data) with { Length = (uint)count };
        connection.Due &= ~VsockDue.Credit;
        return true;
    }

    /// <summary>A packet that the connection owes: a shutdown, or credit.</summary>
    public bool TryControl(VsockConnection connection, out VsockHeader header)
    {
        header = default;
        if ((connection.Due & VsockDue.Shutdown) != 0)
        {
            connection.Due &= ~(VsockDue.Shutdown | VsockDue.Credit);
            header = Header(connection, VsockOperation.Shutdown) with { Flags = (uint)connection.HostEnded };
            return true;
        }

        if ((connection.Due & VsockDue.Credit) != 0)
        {
            connection.Due &= ~VsockDue.Credit;
            header = Header(connection, VsockOperation.CreditUpdate);
            return true;
        }

        return false;
    }

    /// <summary>The header of a packet of a connection.</summary>
    public VsockHeader Header(VsockConnection connection, VsockOperation operation)
    {
        connection.CreditTold();
        return new VsockHeader
        {
            SourceCid = VsockSwitch.HostCid,
            DestinationCid = guestCid,
            SourcePort = connection.HostPort,
            DestinationPort = connection.GuestPort,
            Type = VsockHeader.Stream,
            Operation = operation,
            BufferBytes = VsockConnection.BufferBytes,
            ForwardedBytes = connection.Forwarded,
        };
    }
}
