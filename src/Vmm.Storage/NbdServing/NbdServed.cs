using System.Buffers.Binary;
using System.Text;

namespace Vmm.Storage.NbdServing;

/// <summary>What a server tells of its one export.</summary>
internal sealed class NbdServed
{
    /// <summary>Most bytes of one read or write. A client that asks for more is told an error.</summary>
    internal const uint MostPayload = 4 << 20;

    private const uint Preferred = 4096;

    /// <param name="name">The export's name; a client may leave it out.</param>
    /// <param name="disk">What is behind it.</param>
    internal NbdServed(string name, in BlockGeometry disk)
    {
        Name = Encoding.UTF8.GetBytes(name);
        Size = disk.CapacityBytes;
        IsReadOnly = disk.ReadOnly;
        bool canDiscard = (disk.Abilities & DiskAbilities.Discard) != 0, canZero = (disk.Abilities & DiskAbilities.WriteZeroes) != 0;
        Flags = (ushort)(NbdWire.HasFlags | NbdWire.SendFlush | NbdWire.SendFua | (IsReadOnly ? NbdWire.ReadOnly : 0)
            | (canDiscard ? NbdWire.SendTrim : 0) | (canZero ? NbdWire.SendWriteZeroes : 0));
    }

    /// <summary>Its name in UTF-8.</summary>
    internal byte[] Name { get; }

    /// <summary>Bytes.</summary>
    internal ulong Size { get; }

    /// <summary>Writes are refused.</summary>
    internal bool IsReadOnly { get; }

    /// <summary>What it can do, as the protocol has it.</summary>
    internal ushort Flags { get; }

    /// <summary>A client that says this name means it.</summary>
    internal bool IsNamed(ReadOnlySpan<byte> name) => name.IsEmpty || name.SequenceEqual(Name);

    /// <summary>Size and flags: 10 bytes.</summary>
    internal void WriteShort(Span<byte> into)
    {
        BinaryPrimitives.WriteUInt64BigEndian(into, Size);
        BinaryPrimitives.WriteUInt16BigEndian(into[8..], Flags);
    }

    /// <summary>Block sizes: 12 bytes.</summary>
    internal static void WriteBlocks(Span<byte> into)
    {
        BinaryPrimitives.WriteUInt32BigEndian(into, 1);
        BinaryPrimitives.WriteUInt32BigEndian(into[4..], Preferred);
        BinaryPrimitives.WriteUInt32BigEndian(into[8..], MostPayload);
    }

    /// <summary>Why a request is refused before anything is done: an error of the protocol; 0 when it is not.</summary>
    internal uint WhyNot(in NbdRequest request)
    {
        bool writes = request.Kind is NbdRequestKind.Write or NbdRequestKind.Trim or NbdRequestKind.WriteZeroes;
        ushort known = request.Kind switch
        {
            NbdRequestKind.WriteZeroes => NbdWire.Fua | NbdWire.NoHole,
            _ => NbdWire.Fua, // without meaning for reads and flushes
        };
        bool isKnown = request.Kind switch
        {
            NbdRequestKind.Read or NbdRequestKind.Write or NbdRequestKind.Flush => true,
            NbdRequestKind.Trim => (Flags & NbdWire.SendTrim) != 0 || IsReadOnly,
            NbdRequestKind.WriteZeroes => (Flags & NbdWire.SendWriteZeroes) != 0 || IsReadOnly,
            _ => false,
        };
        if (!isKnown || (request.Flags & ~known) != 0)
        {
            return NbdWire.Invalid;
        }

        if (request.Kind == NbdRequestKind.Flush)
        {
            return 0;
        }

        return writes && IsReadOnly ? NbdWire.NotPermitted
            : request.Kind is NbdRequestKind.Read or NbdRequestKind.Write && request.Length > MostPayload ? NbdWire.Invalid
            : request.Offset > Size || request.Length > Size - request.Offset ? (writes ? NbdWire.NoSpace : NbdWire.Invalid)
            : 0;
    }
}
