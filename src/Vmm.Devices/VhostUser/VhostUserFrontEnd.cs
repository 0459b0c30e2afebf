using System.Buffers.Binary;
using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Devices.VhostUser;

/// <summary>A ring to hand over.</summary>
/// <param name="Index">Its number.</param>
/// <param name="Parts">Where it lies.</param>
/// <param name="Next">Index of the next available entry.</param>
/// <param name="Kick">Rung by the guest.</param>
/// <param name="Call">Rung by the back end for an interrupt.</param>
/// <param name="Error">Rung by the back end when the driver broke the ring.</param>
internal readonly record struct VhostUserRing(int Index, RingParts Parts, ushort Next, EventFd Kick, EventFd Call, EventFd Error);

/// <summary>
/// A back end behind a socket that serves rings of a guest (vhost-user). It maps the guest's memory from its files and rings the guest's
/// interrupts itself. Of what the protocol offers only what is used here is negotiated: several queues and acknowledged requests. No
/// channel
/// for requests of the back end, no log of dirty pages, no shared record of requests in flight. One thread at a time.
/// </summary>
internal sealed class VhostUserFrontEnd : IDisposable
{
    /// <summary>VHOST_USER_F_PROTOCOL_FEATURES, a bit of the device's features that no driver sees.</summary>
    internal const ulong ProtocolFeatures = 1UL << 30;

    private const ulong FeatureQueues = 1 << 0, FeatureReplyAck = 1 << 3; // VHOST_USER_PROTOCOL_F_MQ, _REPLY_ACK

    /// <summary>
    /// What a back end takes for our addresses of guest memory, beside the guest's own: no address of this process, so that it learns none,
    /// and so far away that one that was not translated is found nowhere.
    /// </summary>
    private const ulong Displacement = 1UL << 46;

    private readonly VhostUserConnection _connection;
    private readonly TimeSpan _patience, _stopPatience;

    private VhostUserFrontEnd(VhostUserConnection connection, TimeSpan patience, TimeSpan stopPatience) =>
        (_connection, _patience, _stopPatience) = (connection, patience, stopPatience);

    /// <summary>The socket, for polling.</summary>
    internal FileDescriptorHandle Handle => _connection.Handle;

    /// <inheritdoc cref="VhostUserConnection.Look"/>
    internal BackEndSign Look() => _connection.Look();

    /// <summary>Speaks with a back end for the first time.</summary>
    /// <param name="stream">A connected socket, owned from here on, also when this throws.</param>
    /// <param name="required">Feature bits that it must know.</param>
    /// <param name="rings">Rings that it must serve.</param>
    /// <param name="patience">How long one request may take.</param>
    /// <param name="stopPatience">How long it may take to give a ring back: as long as the request that it has at hand.</param>
    /// <exception cref="VhostUserException">It cannot do what is needed, or does not answer.</exception>
    internal static VhostUserFrontEnd Begin(UnixStream stream, ulong required, int rings, TimeSpan patience, TimeSpan stopPatience)
    {
        VhostUserConnection connection = new(stream);
        try
        {
            VhostUserFrontEnd front = new(connection, patience, stopPatience);
            front.Negotiate(required | ProtocolFeatures, rings);
            return front;
        }
        catch
        {
            connection.Dispose();
            throw;
        }
    }

    /// <summary>What the driver accepted; while no ring is served.</summary>
    /// <exception cref="VhostUserException">Refused, or the back end is gone.</exception>
    internal void SetFeatures(ulong features) => Tell(VhostUserRequest.SetFeatures, features | ProtocolFeatures);

    /// <summary>Guest memory from now on; while no ring is served: back ends exchange their mappings under requests that use
    /// them.</summary>
    /// <exception cref="VhostUserException">Too many ranges, refused, or the back end is gone.</exception>
    internal void SetMemory(ReadOnlySpan<MemoryExtent> extents)
    {
        if (extents.Length > VhostUserMessage.MostRegions)
        {
            throw new VhostUserException($"the guest's memory is in {extents.Length} pieces, and it takes {VhostUserMessage.MostRegions}");
        }

        Span<byte> table = stackalloc byte[8 + (32 * extents.Length)];
        table.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(table, (uint)extents.Length);
        FileDescriptorHandle[] files = new FileDescriptorHandle[extents.Length];
        for (int i = 0; i < extents.Length; i++)
        {
            Span<byte> entry = table.Slice(8 + (32 * i), 32);
            BinaryPrimitives.WriteUInt64LittleEndian(entry, extents[i].Start.Value);
            BinaryPrimitives.WriteUInt64LittleEndian(entry[8..], extents[i].Length.Bytes);
            BinaryPrimitives.WriteUInt64LittleEndian(entry[16..], extents[i].Start.Value + Displacement);
            BinaryPrimitives.WriteUInt64LittleEndian(entry[24..], extents[i].Offset);
            files[i] = extents[i].File;
        }

        _connection.Tell(VhostUserRequest.SetMemoryTable, table, files, _patience);
    }

    /// <summary>The back end serves a ring from here on.</summary>
    /// <exception cref="VhostUserException">Refused, or the back end is gone.</exception>
    internal void Hand(in VhostUserRing ring)
    {
        Tell(VhostUserRequest.SetRingSize, ring.Index, ring.Parts.Size);
        Tell(VhostUserRequest.SetRingBase, ring.Index, ring.Next);
        Span<byte> address = stackalloc byte[40];
        address.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(address, (uint)ring.Index);
        BinaryPrimitives.WriteUInt64LittleEndian(address[8..], ring.Parts.Descriptors.Value + Displacement);
        BinaryPrimitives.WriteUInt64LittleEndian(address[16..], ring.Parts.Used.Value + Displacement);
        BinaryPrimitives.WriteUInt64LittleEndian(address[24..], ring.Parts.Available.Value + Displacement);
        _connection.Tell(VhostUserRequest.SetRingAddress, address, [], _patience);
        Tell(VhostUserRequest.SetRingError, ring.Index, ring.Error);
        Tell(VhostUserRequest.SetRingCall, ring.Index, ring.Call);
        Tell(VhostUserRequest.SetRingKick, ring.Index, ring.Kick);
        Tell(VhostUserRequest.SetRingEnable, ring.Index, 1);
    }

    /// <summary>Another eventfd for the interrupts of a ring that is served.</summary>
    /// <exception cref="VhostUserException">Refused, or the back end is gone.</exception>
    internal void SetCall(int ring, EventFd call) => Tell(VhostUserRequest.SetRingCall, ring, call);

    /// <summary>Takes a ring back: what the back end took from it is complete then. The index of the next available entry.</summary>
    /// <exception cref="VhostUserException">Refused, or the back end is gone.</exception>
    internal ushort TakeBack(int ring)
    {
        Span<byte> payload = stackalloc byte[8];
        payload.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(payload, (uint)ring);
        ulong answer = _connection.Ask(VhostUserRequest.GetRingBase, payload, _stopPatience);
        // struct vhost_vring_state: the ring, and a number whose upper half is of packed rings.
        return (uint)answer == (uint)ring && answer >> 48 == 0
            ? (ushort)(answer >> 32)
            : throw new VhostUserException($"it gives back ring {(uint)answer} at {answer >> 32}, and was asked for ring {ring}");
    }

    /// <summary>Lets the back end end by itself.</summary>
    internal void Abandon() => _connection.Abandon();

    /// <inheritdoc/>
    public void Dispose() => _connection.Dispose();

    private void Negotiate(ulong required, int rings)
    {
        _connection.Tell(VhostUserRequest.SetOwner, [], [], _patience);
        ulong features = _connection.Ask(VhostUserRequest.GetFeatures, [], _patience);
        if ((features & required) != required)
        {
            throw new VhostUserException($"it lacks features: it has 0x{features:x}, and needs 0x{required:x}");
        }

        ulong offered = _connection.Ask(VhostUserRequest.GetProtocolFeatures, [], _patience);
        ulong used = offered & (FeatureQueues | FeatureReplyAck);
        Tell(VhostUserRequest.SetProtocolFeatures, used);
        _connection.Acknowledges = (used & FeatureReplyAck) != 0;
        if ((used & FeatureQueues) != 0)
        {
            ulong most = _connection.Ask(VhostUserRequest.GetQueueCount, [], _patience);
            if (most < (ulong)rings)
            {
                throw new VhostUserException($"it serves {most} rings, and needs {rings}");
            }
        }
    }

    private void Tell(VhostUserRequest request, ulong number)
    {
        Span<byte> payload = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(payload, number);
        _connection.Tell(request, payload, [], _patience);
    }

    private void Tell(VhostUserRequest request, int ring, uint number)
    {
        Span<byte> payload = stackalloc byte[8];
        BinaryPrimitives.WriteUInt32LittleEndian(payload, (uint)ring);
        BinaryPrimitives.WriteUInt32LittleEndian(payload[4..], number);
        _connection.Tell(request, payload, [], _patience);
    }

    private void Tell(VhostUserRequest request, int ring, EventFd bell)
    {
        Span<byte> payload = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(payload, (ulong)ring);
        _connection.Tell(request, payload, [bell.Handle], _patience);
    }
}
