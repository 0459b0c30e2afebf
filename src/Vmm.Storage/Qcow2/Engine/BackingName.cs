using System.Buffers.Binary;
using System.Text;

namespace Vmm.Storage.Qcow2;

/// <summary>
/// Changes the name of an image's backing file. After a crash the image has the old name or the new one: the new name is written where
/// nothing lies and made stable, then one sector of the header says where it is.
/// </summary>
internal static class BackingName
{
    private const int Sector = 512, NameAt = 8;

    /// <summary>Writes it; stable when this returns.</summary>
    /// <param name="file">The image.</param>
    /// <param name="name">The name as the image shall give it; null: none.</param>
    /// <param name="format">Its format; goes with every name.</param>
    /// <exception cref="BlockException">The header has no room for it, or the host failed.</exception>
    internal static void Write(IImageFile file, string? name, string? format)
    {
        byte[] start = new byte[ChainReader.HeaderBytes];
        file.Read(start, 0);
        Qcow2Header header = Qcow2Header.Parse(start, file.Path);
        if (string.Equals(header.BackingFile, name, StringComparison.Ordinal)
            && string.Equals(header.BackingFormat, format, StringComparison.Ordinal))
        {
            return;
        }

        byte[] old = start[..(int)Math.Min((uint)start.Length, header.Geometry.ClusterSize)];
        byte[] bytes = name is null ? [] : Encoding.UTF8.GetBytes(name);
        byte[] next = Extensions(header, old, name is null ? null : format, out int end);
        int at = bytes.Length == 0 ? 0 : Place(header, old, bytes.Length, end);
        if (bytes.Length > Qcow2Header.MaxBackingName || at < 0)
        {
            throw new BlockException(BlockErrorKind.NotADisk,
                $"disk {file.Path}: its header has no room for the name of a backing file of {bytes.Length} bytes")
            { Path = file.Path };
        }

        bytes.CopyTo(next, at);
        BinaryPrimitives.WriteUInt64BigEndian(next.AsSpan(NameAt), (ulong)at);
        BinaryPrimitives.WriteUInt32BigEndian(next.AsSpan(NameAt + 8), (uint)bytes.Length);
        int written = Math.Max(end, at + bytes.Length);
        file.Flush(); // what the image needs when it no longer sees the old file
        if (written > Sector && !next.AsSpan(Sector).SequenceEqual(old.AsSpan(Sector)))
        {
            file.Write(next.AsSpan(Sector, written - Sector), Sector); // behind the first sector nobody reads it yet
            file.Flush();
        }

        file.Write(next.AsSpan(0, Sector), 0);
        file.Flush();
    }

    // The first cluster with other extensions, which only differs in its first sector where that can be; the end of the extensions.
    private static byte[] Extensions(Qcow2Header header, byte[] old, string? format, out int end)
    {
        Qcow2Header[] forms =
        [
            header with { BackingFormat = format },
            header with { BackingFormat = format ?? header.BackingFormat }, // says nothing without a name, and keeps its place
            header with
            {
                BackingFormat = format,
                Extensions = [.. header.Extensions.Where(e => e.Type != Qcow2Header.ExtensionFeatureNames)], // they are for people
            },
        ];
        byte[] next = [];
        end = 0;
        foreach (Qcow2Header form in forms)
        {
            byte[] encoded = (form with { BackingFile = null }).Encode()[..old.Length];
            (next, end) = ((byte[])old.Clone(), End(form, encoded));
            encoded.AsSpan((int)header.HeaderLength..end).CopyTo(next.AsSpan((int)header.HeaderLength));
            if (next.AsSpan(Sector).SequenceEqual(old.AsSpan(Sector)))
            {
                return next;
            }
        }

        return next; // other extensions fill more than the first sector: they move
    }

    // Behind the extensions, old and new, where the old name is not: the first place of those at which nothing is lost by writing.
    private static int Place(Qcow2Header header, byte[] old, int length, int end)
    {
        end = Math.Max(end, End(header, old));
        int nameAt = (int)BinaryPrimitives.ReadUInt64BigEndian(old.AsSpan(NameAt));
        int nameEnd = nameAt + (int)BinaryPrimitives.ReadUInt32BigEndian(old.AsSpan(NameAt + 8));
        if (nameAt == 0 || end + length <= nameAt)
        {
            return end + length <= old.Length ? end : -1;
        }

        int behind = Math.Max(nameEnd, end);
        return behind + length <= old.Length ? behind
            : old.Length == Sector && end + length <= Sector ? end // one sector: the name and where it is change at once
            : -1;
    }

    // Behind the last extension; without a mark of the end they go up to the name.
    private static int End(Qcow2Header header, byte[] cluster)
    {
        int at = (int)header.HeaderLength, name = (int)BinaryPrimitives.ReadUInt64BigEndian(cluster.AsSpan(NameAt));
        int most = name == 0 ? cluster.Length : Math.Min(name, cluster.Length);
        uint type = Qcow2Header.ExtensionBackingFormat;
        while (at + 8 <= most && type != Qcow2Header.ExtensionEnd)
        {
            type = BinaryPrimitives.ReadUInt32BigEndian(cluster.AsSpan(at));
            uint length = BinaryPrimitives.ReadUInt32BigEndian(cluster.AsSpan(at + 4));
            at += 8 + (type == Qcow2Header.ExtensionEnd ? 0 : (int)((length + 7) & ~7u));
        }

        return Math.Min(at, most);
    }
}
