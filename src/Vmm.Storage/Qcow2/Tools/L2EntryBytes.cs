using System.Buffers.Binary;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>L2 entries in the bytes of a table.</summary>
internal static class L2EntryBytes
{
    /// <summary>The entry that begins at a byte of the table.</summary>
    internal static L2Entry Read(ReadOnlySpan<byte> table, int at, Qcow2Geometry image) => new(
        BinaryPrimitives.ReadUInt64BigEndian(table[at..]),
        image.ExtendedL2 ? BinaryPrimitives.ReadUInt64BigEndian(table[(at + 8)..]) : 0);

    /// <summary>Puts it there.</summary>
    internal static void Write(Span<byte> table, int at, Qcow2Geometry image, L2Entry entry)
    {
        BinaryPrimitives.WriteUInt64BigEndian(table[at..], entry.Bits);
        if (image.ExtendedL2)
        {
            BinaryPrimitives.WriteUInt64BigEndian(table[(at + 8)..], entry.Bitmap);
        }
    }
}
