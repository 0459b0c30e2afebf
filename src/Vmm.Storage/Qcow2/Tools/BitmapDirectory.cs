using System.Buffers.Binary;
using System.Text;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>A bitmap that an image keeps (qcow2.rst, "Bitmaps").</summary>
/// <param name="Name">Its name.</param>
/// <param name="TableOffset">Where its table lies.</param>
/// <param name="TableSize">Entries of that table.</param>
/// <param name="Flags">1: was not saved; 2: is kept up to date.</param>
/// <param name="GranularityBits">log2 of the bytes of the disk for one bit.</param>
public sealed record Qcow2Bitmap(string Name, ulong TableOffset, uint TableSize, uint Flags, int GranularityBits)
{
    /// <summary>It was not saved, and says nothing.</summary>
    public bool IsInconsistent => (Flags & 1) != 0;
}

/// <summary>Reads the directory of bitmaps, whose bytes may be anything.</summary>
internal static class BitmapDirectory
{
    private const uint MostBitmaps = 65535, FixedBytes = 24, MostName = 1023;

    /// <summary>Where the directory lies, and its bytes; 0 bytes when the image has none that can be believed.</summary>
    internal static (ulong Offset, ulong Length, uint Count) Place(Qcow2Header header)
    {
        foreach (Qcow2Extension extension in header.Extensions)
        {
            if (extension.Type == Qcow2Header.ExtensionBitmaps && (header.Autoclear & Qcow2Autoclear.Bitmaps) != 0
                && extension.Data.Length >= 24)
            {
                ReadOnlySpan<byte> data = extension.Data.Span;
                return (BinaryPrimitives.ReadUInt64BigEndian(data[16..]), BinaryPrimitives.ReadUInt64BigEndian(data[8..]),
                    BinaryPrimitives.ReadUInt32BigEndian(data));
            }
        }

        return default;
    }

    /// <summary>Reads the bitmaps one after the other.</summary>
    /// <param name="file">The image.</param>
    /// <param name="header">Its header.</param>
    /// <param name="problem">Gets what is wrong, with its place; reading ends then.</param>
    internal static List<Qcow2Bitmap> Read(IImageFile file, Qcow2Header header, Action<ulong, string> problem)
    {
        List<Qcow2Bitmap> bitmaps = [];
        (ulong offset, ulong length, uint count) = Place(header);
        if (count == 0)
        {
            return bitmaps;
        }

        if (count > MostBitmaps || offset == 0 || !header.Geometry.IsAligned(offset) || length < count * (ulong)FixedBytes
            || offset > file.Length || length > file.Length - offset)
        {
            problem(offset, $"a directory of {count} bitmaps, {length} bytes at {offset}, cannot be");
            return bitmaps;
        }

        byte[] entry = new byte[FixedBytes];
        ulong at = offset;
        for (uint i = 0; i < count; i++)
        {
            ulong left = offset + length - at;
            if (left >= FixedBytes)
            {
                file.Read(entry, at);
            }

            int name = BinaryPrimitives.ReadUInt16BigEndian(entry.AsSpan(18));
            ulong size = (FixedBytes + (ulong)BinaryPrimitives.ReadUInt32BigEndian(entry.AsSpan(20)) + (uint)name + 7) & ~7ul;
            if (left < FixedBytes || size > left || name is 0 or > (int)MostName)
            {
                problem(at, $"the directory of bitmaps is broken behind {i} of {count}");
                break;
            }

            bitmaps.Add(ReadEntry(file, at, entry, name));
            at += size;
        }

        return bitmaps;
    }

    private static Qcow2Bitmap ReadEntry(IImageFile file, ulong at, byte[] entry, int nameBytes)
    {
        byte[] name = new byte[nameBytes];
        file.Read(name, at + FixedBytes + BinaryPrimitives.ReadUInt32BigEndian(entry.AsSpan(20)));
        return new Qcow2Bitmap(
            Encoding.UTF8.GetString(name),
            BinaryPrimitives.ReadUInt64BigEndian(entry),
            BinaryPrimitives.ReadUInt32BigEndian(entry.AsSpan(8)),
            BinaryPrimitives.ReadUInt32BigEndian(entry.AsSpan(12)),
            entry[17]);
    }
}
