using System.Buffers.Binary;
using Vmm.State;

namespace Vmm.Machine.Moving;

/// <summary>What a frame of a channel is.</summary>
internal enum MoveFrameKind
{
    /// <summary>The first frame of each channel: protocol, session, which channel it is of how many.</summary>
    Hello = 1,

    /// <summary>A piece of the machine's description, on channel 0.</summary>
    Offer = 2,

    /// <summary>Pages with their content.</summary>
    Pages = 3,

    /// <summary>Pages that are zeros now.</summary>
    Zeros = 4,

    /// <summary>A round is over on this channel.</summary>
    Mark = 5,

    /// <summary>A piece of the machine's state, on channel 0, behind the last round.</summary>
    Document = 6,

    /// <summary>Nothing follows on this channel.</summary>
    End = 7,

    /// <summary>From the receiver on channel 0: the memory is there, and is waited for.</summary>
    Accepted = 8,

    /// <summary>From the receiver on channel 0: everything is there, and checks out.</summary>
    Complete = 9,

    /// <summary>From the receiver on channel 0: nothing comes of it; why.</summary>
    Refused = 10,

    /// <summary>A memory itself, by its descriptor, on channel 0 before the description: its pages are not sent.</summary>
    Memory = 11,
}

/// <summary>
/// The head of a frame (docs/moves-format.md). What was received is checked by <see cref="TryRead"/> as far as a frame by itself can be
/// wrong: whether its pages exist is for who has them.
/// </summary>
/// <param name="Kind">What it is.</param>
/// <param name="Part">Which memory, for pages.</param>
/// <param name="First">First page; pages of a memory; number of the round; offset of a piece; at the end 1 for a machine that stays
/// paused.</param>
/// <param name="Count">Pages; 1 for the last piece, and 0 for others.</param>
/// <param name="Length">Bytes behind the head.</param>
internal readonly record struct MoveFrame(MoveFrameKind Kind, int Part, ulong First, uint Count, int Length)
{
    /// <summary>Bytes of the head.</summary>
    internal const int HeadBytes = 32;

    /// <summary>Bytes of a page, whatever the host's are.</summary>
    internal const int PageBytes = 4096;

    /// <summary>Most pages with content in one frame.</summary>
    internal const int MostPages = 32;

    /// <summary>Most bytes behind a head.</summary>
    internal const int MostBytes = MostPages * PageBytes;

    private const uint Magic = 0x314D4D56; // "VMM1"
    private const int Summed = 24; // bytes of the head that the checksum covers

    /// <summary>Writes the head of what follows.</summary>
    internal void Write(Span<byte> head, ReadOnlySpan<byte> content)
    {
        head = head[..HeadBytes];
        head.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(head, Magic);
        head[4] = (byte)Kind;
        head[5] = (byte)Part;
        BinaryPrimitives.WriteUInt64LittleEndian(head[8..], First);
        BinaryPrimitives.WriteUInt32LittleEndian(head[16..], Count);
        BinaryPrimitives.WriteUInt32LittleEndian(head[20..], (uint)Length);
        BinaryPrimitives.WriteUInt32LittleEndian(head[24..], Crc32C.Of(content, Crc32C.Of(head[..Summed])));
    }

    /// <summary>Reads a head.</summary>
    /// <returns>False: it is none, or says what no frame can; <paramref name="problem"/> says what.</returns>
    internal static bool TryRead(ReadOnlySpan<byte> head, out MoveFrame frame, out string problem)
    {
        head = head[..HeadBytes];
        MoveFrameKind kind = (MoveFrameKind)head[4];
        ulong first = BinaryPrimitives.ReadUInt64LittleEndian(head[8..]);
        uint count = BinaryPrimitives.ReadUInt32LittleEndian(head[16..]), length = BinaryPrimitives.ReadUInt32LittleEndian(head[20..]);
        frame = default;
        problem = BinaryPrimitives.ReadUInt32LittleEndian(head) != Magic ? "bytes that are no frame of a move"
            : kind is < MoveFrameKind.Hello or > MoveFrameKind.Memory ? $"a frame of the unknown kind {head[4]}"
            : (head[6] | head[7]) != 0 || BinaryPrimitives.ReadUInt32LittleEndian(head[28..]) != 0 ? "a frame with bits that mean nothing"
            : length > MostBytes ? $"a frame of {length} bytes"
            : kind == MoveFrameKind.Pages && (count is 0 or > MostPages || length != count * PageBytes)
                ? $"{count} pages in {length} bytes"
            : kind is MoveFrameKind.Zeros && (count == 0 || length != 0) ? $"{count} pages of zeros in {length} bytes"
            : kind is MoveFrameKind.Mark or MoveFrameKind.End or MoveFrameKind.Accepted or MoveFrameKind.Complete or MoveFrameKind.Memory
                && (length | count) != 0
                ? $"{length} bytes in a frame that has none"
            : kind is MoveFrameKind.Offer or MoveFrameKind.Document && (count > 1 || length == 0) ? "a piece that is none"
            : "";
        if (problem.Length > 0)
        {
            return false;
        }

        frame = new MoveFrame(kind, head[5], first, count, (int)length);
        return true;
    }

    /// <summary>Whether head and content are what was sent.</summary>
    internal static bool Checks(ReadOnlySpan<byte> head, ReadOnlySpan<byte> content) =>
        BinaryPrimitives.ReadUInt32LittleEndian(head[24..]) == Crc32C.Of(content, Crc32C.Of(head[..Summed]));
}
