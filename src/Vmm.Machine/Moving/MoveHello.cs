using System.Buffers.Binary;

namespace Vmm.Machine.Moving;

/// <summary>The content of the first frame of a channel.</summary>
/// <param name="Protocol">Version of the format.</param>
/// <param name="Channel">Which channel it is.</param>
/// <param name="Channels">Of how many.</param>
/// <param name="Session">The move: channels of two cannot be mixed.</param>
internal readonly record struct MoveHello(int Protocol, int Channel, int Channels, UInt128 Session)
{
    /// <summary>Version of the format that this release speaks.</summary>
    internal const int Current = 1;

    /// <summary>Bytes of it.</summary>
    internal const int Bytes = 24;

    /// <summary>Writes it.</summary>
    internal void Write(Span<byte> into)
    {
        BinaryPrimitives.WriteUInt16LittleEndian(into, (ushort)Protocol);
        BinaryPrimitives.WriteUInt16LittleEndian(into[2..], (ushort)Channel);
        BinaryPrimitives.WriteUInt16LittleEndian(into[4..], (ushort)Channels);
        BinaryPrimitives.WriteUInt16LittleEndian(into[6..], 0);
        BinaryPrimitives.WriteUInt128LittleEndian(into[8..], Session);
    }

    /// <summary>Reads and checks it.</summary>
    /// <param name="from">The content of the frame.</param>
    /// <param name="channel">Which channel it came on.</param>
    /// <param name="channels">How many there are.</param>
    /// <exception cref="MoveException">It is of another release, or of another channel.</exception>
    internal static MoveHello Read(ReadOnlySpan<byte> from, int channel, int channels)
    {
        if (from.Length != Bytes)
        {
            throw new MoveException($"channel {channel} begins with a greeting of {from.Length} bytes");
        }

        MoveHello hello = new(
            BinaryPrimitives.ReadUInt16LittleEndian(from),
            BinaryPrimitives.ReadUInt16LittleEndian(from[2..]),
            BinaryPrimitives.ReadUInt16LittleEndian(from[4..]),
            BinaryPrimitives.ReadUInt128LittleEndian(from[8..]));
        return hello.Protocol != Current ? throw new MoveException(
                $"the sender speaks version {hello.Protocol} of the format of moves, this release version {Current}")
            : hello.Channel != channel || hello.Channels != channels ? throw new MoveException(
                $"channel {channel} of {channels} is channel {hello.Channel} of {hello.Channels} for the sender")
            : hello;
    }
}
