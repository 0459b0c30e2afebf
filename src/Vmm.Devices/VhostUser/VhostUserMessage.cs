using System.Buffers.Binary;

namespace Vmm.Devices.VhostUser;

/// <summary>Requests of a front end, by their numbers in the vhost-user protocol.</summary>
internal enum VhostUserRequest : uint
{
    GetFeatures = 1,
    SetFeatures = 2,
    SetOwner = 3,
    SetMemoryTable = 5,
    SetRingSize = 8,
    SetRingAddress = 9,
    SetRingBase = 10,
    GetRingBase = 11,
    SetRingKick = 12,
    SetRingCall = 13,
    SetRingError = 14,
    GetProtocolFeatures = 15,
    SetProtocolFeatures = 16,
    GetQueueCount = 17,
    SetRingEnable = 18,
    SetBackEndRequests = 21,
    GetConfig = 24,
    SetRecord = 32, // SET_INFLIGHT_FD
}

/// <summary>
/// Messages of the vhost-user protocol (QEMU's docs/interop/vhost-user.rst): a header of three 32-bit words (request, flags, length of the
/// payload) in the byte order of the host, then the payload. Pure: what a back end sent is judged here, and only here.
/// </summary>
internal static class VhostUserMessage
{
    /// <summary>Bytes of a header.</summary>
    internal const int HeaderLength = 12;

    /// <summary>Longest payload that a front end of ours sends, a table of memory.</summary>
    internal const int MostPayload = 8 + (32 * MostRegions);

    /// <summary>Payload of most answers: a number, or a ring and its index.</summary>
    internal const int NumberLength = 8;

    /// <summary>What is before the bytes of a configuration space: where they are, how many, and flags.</summary>
    internal const int ConfigHead = 12;

    /// <summary>Most bytes of a configuration space that are asked for.</summary>
    internal const int MostConfig = 64;

    /// <summary>Longest payload of an answer.</summary>
    internal const int MostAnswer = ConfigHead + MostConfig;

    /// <summary>Entries of a table of memory, VHOST_MEMORY_BASELINE_NREGIONS: what every back end takes.</summary>
    internal const int MostRegions = 8;

    /// <summary>The payload carries no descriptor (SET_VRING_KICK, _CALL, _ERR).</summary>
    internal const ulong NoDescriptor = 1 << 8;

    private const uint VersionMask = 3, Version = 1, Reply = 4, NeedReply = 8;

    /// <summary>Writes a request; its length.</summary>
    /// <param name="into">At least <see cref="HeaderLength"/> and the payload long.</param>
    /// <param name="request">Which.</param>
    /// <param name="needReply">Its success is to be acknowledged (REPLY_ACK).</param>
    /// <param name="payload">What belongs to it.</param>
    internal static int Write(Span<byte> into, VhostUserRequest request, bool needReply, ReadOnlySpan<byte> payload)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(into, (uint)request);
        BinaryPrimitives.WriteUInt32LittleEndian(into[4..], Version | (needReply ? NeedReply : 0));
        BinaryPrimitives.WriteUInt32LittleEndian(into[8..], (uint)payload.Length);
        payload.CopyTo(into[HeaderLength..]);
        return HeaderLength + payload.Length;
    }

    /// <summary>Reads the header of an answer.</summary>
    /// <param name="header"><see cref="HeaderLength"/> bytes.</param>
    /// <param name="request">What was asked.</param>
    /// <param name="length">Bytes of payload that have to follow.</param>
    /// <param name="problem">What is wrong with it.</param>
    internal static bool TryReadAnswer(ReadOnlySpan<byte> header, VhostUserRequest request, int length, out string problem)
    {
        uint answered = BinaryPrimitives.ReadUInt32LittleEndian(header), flags = BinaryPrimitives.ReadUInt32LittleEndian(header[4..]);
        uint size = BinaryPrimitives.ReadUInt32LittleEndian(header[8..]);
        problem = answered != (uint)request ? $"it answers request {answered}, and was asked {(uint)request} ({request})"
            : (flags & VersionMask) != Version ? $"its answer to {request} has version {flags & VersionMask} of the protocol, not {Version}"
            : (flags & Reply) == 0 ? $"it sends {request} without the mark of an answer"
            : size == 0 && request == VhostUserRequest.GetConfig ? $"it refuses {request}"
            : size != length ? $"its answer to {request} is {size} bytes long, expected {length}"
            : "";
        return problem.Length == 0;
    }
}
