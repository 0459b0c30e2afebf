using System.Buffers.Binary;

namespace Vmm.Storage.NbdServing;

/// <summary>What an option of a client asks for, as the protocol numbers it.</summary>
internal enum NbdOption : uint
{
    ExportName = 1,
    Abort = 2,
    List = 3,
    StartTls = 5,
    Info = 6,
    Go = 7,
}

/// <summary>What a request of a client asks for, as the protocol numbers it.</summary>
internal enum NbdRequestKind : ushort
{
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
    Trim = 4,
    WriteZeroes = 6,
}

/// <summary>
/// Numbers of the Network Block Device protocol (NetworkBlockDevice/nbd, doc/proto.md), of the part that is spoken here: fixed newstyle
/// negotiation, simple replies. All of them are big endian.
/// </summary>
internal static class NbdWire
{
    internal const ulong Magic = 0x4e42444d41474943; // NBDMAGIC
    internal const ulong OptionMagic = 0x49484156454f5054; // IHAVEOPT
    internal const ulong OptionReplyMagic = 0x3e889045565a9;
    internal const uint RequestMagic = 0x25609513, SimpleReplyMagic = 0x67446698;

    /// <summary>Flags of both sides in the beginning: fixed newstyle, and no zeros behind an old export's description.</summary>
    internal const ushort FixedNewstyle = 1, NoZeroes = 2;

    /// <summary>Answers to an option.</summary>
    internal const uint ReplyAck = 1, ReplyServer = 2, ReplyInfo = 3;

    /// <summary>Refusals of an option.</summary>
    internal const uint ReplyUnsupported = 0x8000_0001, ReplyInvalid = 0x8000_0003, ReplyUnknown = 0x8000_0006, ReplyTooBig = 0x8000_0009;

    /// <summary>What is told of an export.</summary>
    internal const ushort InfoExport = 0, InfoName = 1, InfoBlockSize = 3;

    /// <summary>What an export can do.</summary>
    internal const ushort HasFlags = 1, ReadOnly = 2, SendFlush = 4, SendFua = 8, SendTrim = 32, SendWriteZeroes = 64;

    /// <summary>Flags of a request.</summary>
    internal const ushort Fua = 1, NoHole = 2;

    /// <summary>Error numbers of replies.</summary>
    internal const uint NotPermitted = 1, IoError = 5, Invalid = 22, NoSpace = 28, NotSupported = 95;

    /// <summary>Bytes of a request, of a simple reply, and of the head of an option and of its answer.</summary>
    internal const int RequestBytes = 28, ReplyBytes = 16, OptionBytes = 16, OptionReplyBytes = 20;

    /// <summary>Most bytes of a string.</summary>
    internal const int MostText = 4096;

    /// <summary>A simple reply, without its data.</summary>
    internal static void WriteReply(Span<byte> into, uint error, ulong cookie)
    {
        BinaryPrimitives.WriteUInt32BigEndian(into, SimpleReplyMagic);
        BinaryPrimitives.WriteUInt32BigEndian(into[4..], error);
        BinaryPrimitives.WriteUInt64BigEndian(into[8..], cookie);
    }
}

/// <summary>A request, as it came.</summary>
/// <param name="Flags">Its flags.</param>
/// <param name="Kind">What it asks for; perhaps nothing that is known.</param>
/// <param name="Cookie">What its reply is known by.</param>
/// <param name="Offset">First byte.</param>
/// <param name="Length">Bytes.</param>
internal readonly record struct NbdRequest(ushort Flags, NbdRequestKind Kind, ulong Cookie, ulong Offset, uint Length)
{
    /// <summary>Reads one of <see cref="NbdWire.RequestBytes"/>; false when it is none.</summary>
    internal static bool TryRead(ReadOnlySpan<byte> bytes, out NbdRequest request)
    {
        request = new NbdRequest(BinaryPrimitives.ReadUInt16BigEndian(bytes[4..]),
            (NbdRequestKind)BinaryPrimitives.ReadUInt16BigEndian(bytes[6..]), BinaryPrimitives.ReadUInt64BigEndian(bytes[8..]),
            BinaryPrimitives.ReadUInt64BigEndian(bytes[16..]), BinaryPrimitives.ReadUInt32BigEndian(bytes[24..]));
        return BinaryPrimitives.ReadUInt32BigEndian(bytes) == NbdWire.RequestMagic;
    }
}
