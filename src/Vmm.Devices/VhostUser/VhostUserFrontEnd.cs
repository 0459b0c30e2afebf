using System.Buffers.Binary;
using System.Diagnostics;
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
/// interrupts itself. Of what the protocol offers only what is used here is negotiated: several queues, acknowledged requests, and where a
/// device asks for them its configuration with a channel that tells of changes, and the record of requests in flight. No log of dirty
/// pages. One thread at a time.
/// </summary>
internal sealed class VhostUserFrontEnd : IDisposable
{
    /// <summary>VHOST_USER_F_PROTOCOL_FEATURES, a bit of the device's features that no driver sees.</summary>
    internal const ulong ProtocolFeatures = 1UL << 30;

    // VHOST_USER_PROTOCOL_F_MQ, _REPLY_ACK, _BACKEND_REQ, _CONFIG, _INFLIGHT_SHMFD
    private const ulong FeatureQueues = 1 << 0, FeatureReplyAck = 1 << 3, FeatureRequests = 1 << 5, FeatureConfig = 1 << 9,
        FeatureRecord = 1 << 12;

    private const int RecordHead = 24; // struct VhostUserInflight as compilers have it: two words, two halves of one, and its rest

    /// <summary>
    /// What a back end takes for our addresses of guest memory, beside the guest's own: no address of this process, so that it learns none,
    /// and so far away that one that was not translated is found nowhere.
    /// </summary>
    private const ulong Displacement = 1UL << 46;

    private readonly VhostUserConnection _connection;
    private readonly TimeSpan _patience, _stopPatience;
    private byte[] _config = [];

    private VhostUserFrontEnd(VhostUserConnection connection, TimeSpan patience, TimeSpan stopPatience) =>
        (_connection, _patience, _stopPatience) = (connection, patience, stopPatience);

    /// <summary>The socket, for polling.</summary>
    internal FileDescriptorHandle Handle => _connection.Handle;

    /// <summary>What it knows of a device's features.</summary>
    internal ulong Features { get; private set; }

    /// <summary>It keeps the record of requests in flight.</summary>
    internal bool Records { get; private set; }

    /// <summary>The configuration space as it was when this was last read; empty when the device has its own.</summary>
    internal ReadOnlySpan<byte> Config => _config;

    /// <summary>How long it may take to complete what it has taken.</summary>
    internal TimeSpan StopPatience => _stopPatience;

    /// <inheritdoc cref="VhostUserConnection.Look"/>
    internal BackEndSign Look() => _connection.Look();

    /// <summary>Speaks with a back end for the first time.</summary>
    /// <param name="stream">A connected socket, owned from here on, also when this throws.</param>
    /// <param name="needs">What it must be able to do.</param>
    /// <param name="patience">How long one request may take.</param>
    /// <param name="stopPatience">How long it may take to give a ring back: as long as the request that it has at hand.</param>
    /// <param name="requests">Where it is to ask; null: nowhere.</param>
    /// <exception cref="VhostUserException">It cannot do what is needed, or does not answer.</exception>
    internal static VhostUserFrontEnd Begin(
        UnixStream stream, VhostUserNeeds needs, TimeSpan patience, TimeSpan stopPatience, BackEndRequests? requests)
    {
        VhostUserConnection connection = new(stream);
        try
        {
            VhostUserFrontEnd front = new(connection, patience, stopPatience);
            front.Negotiate(needs, requests);
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

    /// <summary>Another doorbell of a ring that is served.</summary>
    /// <exception cref="VhostUserException">Refused, or the back end is gone.</exception>
    internal void SetKick(int ring, EventFd kick) => Tell(VhostUserRequest.SetRingKick, ring, kick);

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

    /// <summary>Reads the configuration space again (VHOST_USER_GET_CONFIG).</summary>
    /// <exception cref="VhostUserException">It refuses, answers for another part, or is gone.</exception>
    internal void ReadConfig()
    {
        Span<byte> payload = stackalloc byte[VhostUserMessage.MostAnswer], answer = stackalloc byte[VhostUserMessage.MostAnswer];
        payload.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(payload[4..], (uint)_config.Length);
        int length = VhostUserMessage.ConfigHead + _config.Length;
        _connection.Ask(VhostUserRequest.GetConfig, payload[..length], answer[..length], _patience);
        if (!answer[..8].SequenceEqual(payload[..8]))
        {
            throw new VhostUserException("it answers GetConfig for another part of the configuration");
        }

        answer.Slice(VhostUserMessage.ConfigHead, _config.Length).CopyTo(_config);
    }

    /// <summary>Where it keeps the record of requests in flight; while no ring is served.</summary>
    /// <exception cref="VhostUserException">Refused, or the back end is gone.</exception>
    internal void SetRecord(VhostUserRecord record)
    {
        Span<byte> payload = stackalloc byte[RecordHead];
        payload.Clear();
        BinaryPrimitives.WriteUInt64LittleEndian(payload, record.Length);
        BinaryPrimitives.WriteUInt16LittleEndian(payload[16..], (ushort)record.Rings);
        BinaryPrimitives.WriteUInt16LittleEndian(payload[18..], record.Size);
        _connection.Tell(VhostUserRequest.SetRecord, payload, [record.File], _patience);
    }

    /// <summary>Waits until it ended, or so long.</summary>
    internal void WaitEnd(TimeSpan patience)
    {
        for (long begin = Stopwatch.GetTimestamp(); Stopwatch.GetElapsedTime(begin) < patience && Look() != BackEndSign.Ended;)
        {
            Span<PollEntry> one = [new PollEntry(Handle, read: true)];
            _ = Poll.Wait(one, 50);
        }
    }

    /// <summary>Lets the back end end by itself.</summary>
    internal void Abandon() => _connection.Abandon();

    /// <inheritdoc/>
    public void Dispose() => _connection.Dispose();

    private void Negotiate(VhostUserNeeds needs, BackEndRequests? requests)
    {
        ulong required = needs.Features | ProtocolFeatures;
        _connection.Tell(VhostUserRequest.SetOwner, [], [], _patience);
        Features = _connection.Ask(VhostUserRequest.GetFeatures, [], _patience);
        if ((Features & required) != required)
        {
            throw new VhostUserException($"it lacks features: it has 0x{Features:x}, and needs 0x{required:x}");
        }

        ulong offered = _connection.Ask(VhostUserRequest.GetProtocolFeatures, [], _patience);
        ulong used = offered & Wanted(needs, requests);
        Records = (used & FeatureRecord) != 0;
        if (needs.ConfigLength > 0 && (used & FeatureConfig) == 0)
        {
            throw new VhostUserException("it does not tell its configuration (VHOST_USER_PROTOCOL_F_CONFIG)");
        }

        if (needs.MustRecord && !Records)
        {
            throw new VhostUserException("it keeps no record of requests in flight (VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD), and the one "
                + "before did");
        }

        Tell(VhostUserRequest.SetProtocolFeatures, used);
        _connection.Acknowledges = (used & FeatureReplyAck) != 0;
        CountRings(needs, (used & FeatureQueues) != 0);
        if ((used & FeatureRequests) != 0)
        {
            requests!.Forget();
            _connection.Tell(VhostUserRequest.SetBackEndRequests, [], [requests.Theirs], _patience);
        }

        if (needs.ConfigLength > 0)
        {
            _config = new byte[needs.ConfigLength];
            ReadConfig();
        }
    }

    private static ulong Wanted(VhostUserNeeds needs, BackEndRequests? requests) =>
        FeatureQueues | FeatureReplyAck | (needs.ConfigLength > 0 ? FeatureConfig : 0) | (requests is not null ? FeatureRequests : 0)
            | (needs.RecordSize > 0 ? FeatureRecord : 0);

    private void CountRings(VhostUserNeeds needs, bool tells)
    {
        if (needs.Rings <= needs.UsualRings && !(tells && needs.CountsRings))
        {
            return;
        }

        ulong most = tells ? _connection.Ask(VhostUserRequest.GetQueueCount, [], _patience) : (ulong)needs.UsualRings;
        if (most < (ulong)needs.Rings)
        {
            throw new VhostUserException($"it serves {most} rings, and needs {needs.Rings}");
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
