using System.Buffers.Binary;
using System.Text;

namespace Vmm.Storage.Seeds;

/// <summary>Records of a folder (ECMA-119 section 9.1) with the Rock Ridge entries behind their names (IEEE P1281 and P1282).</summary>
internal static class SeedRecord
{
    private const int FixedBytes = 33, ContinuationBytes = 28;
    private const uint FolderMode = 0x4000 | 0x140, FileMode = 0x8000 | 0x100; // 0500 and 0400: for the guest's root alone

    private static byte[] Reference { get; } =
    [
        .. "ER"u8, 237, 1, 10, 84, 135, 1,
        .. "RRIP_1991A"u8,
        .. "THE ROCK RIDGE INTERCHANGE PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS"u8,
        .. "PLEASE CONTACT DISC PUBLISHER FOR SPECIFICATION SOURCE.  SEE PUBLISHER IDENTIFIER IN PRIMARY VOLUME DESCRIPTOR FOR "u8,
        .. "CONTACT INFORMATION."u8,
    ];

    /// <summary>Writes a record.</summary>
    /// <returns>Its bytes.</returns>
    internal static int Write(Span<byte> to, uint sector, uint bytes, bool isFolder, ReadOnlySpan<byte> name, ReadOnlySpan<byte> more)
    {
        int named = FixedBytes + name.Length + ((name.Length & 1) == 0 ? 1 : 0), length = named + more.Length + (more.Length & 1);
        to[0] = (byte)length;
        Both32(to[2..], sector);
        Both32(to[10..], bytes);
        (to[18], to[19], to[20]) = (100, 1, 1); // the first day of 2000: the same files are the same disk
        to[25] = (byte)(isFolder ? 2 : 0);
        Both16(to[28..], 1);
        to[32] = (byte)name.Length;
        name.CopyTo(to[FixedBytes..]);
        more.CopyTo(to[named..]);
        return length;
    }

    /// <summary>Of the root itself: that Rock Ridge is used, and where its reference is.</summary>
    internal static byte[] OfRoot(int referenceSector)
    {
        byte[] entry = new byte[ContinuationBytes];
        "CE"u8.CopyTo(entry);
        (entry[2], entry[3]) = (ContinuationBytes, 1);
        Both32(entry.AsSpan(4), (uint)referenceSector);
        Both32(entry.AsSpan(12), 0);
        Both32(entry.AsSpan(20), (uint)Reference.Length);
        return [.. "SP"u8, 7, 1, 0xBE, 0xEF, 0, .. Mode(FolderMode, links: 2), .. entry];
    }

    /// <summary>Of the folder around the root, which is the root.</summary>
    internal static byte[] OfFolder() => Mode(FolderMode, links: 2);

    /// <summary>Of a file: who may read it, and its real name.</summary>
    internal static byte[] OfFile(string name) =>
        [.. Mode(FileMode, links: 1), .. "NM"u8, (byte)(5 + name.Length), 1, 0, .. Encoding.ASCII.GetBytes(name)];

    /// <summary>The reference to what Rock Ridge is.</summary>
    internal static void WriteReference(Span<byte> to) => Reference.CopyTo(to);

    /// <summary>A number in both orders (ECMA-119 section 7.3.3).</summary>
    internal static void Both32(Span<byte> to, uint value)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(to, value);
        BinaryPrimitives.WriteUInt32BigEndian(to[4..], value);
    }

    /// <summary>A number in both orders (ECMA-119 section 7.2.3).</summary>
    internal static void Both16(Span<byte> to, ushort value)
    {
        BinaryPrimitives.WriteUInt16LittleEndian(to, value);
        BinaryPrimitives.WriteUInt16BigEndian(to[2..], value);
    }

    private static byte[] Mode(uint mode, uint links)
    {
        byte[] entry = new byte[36];
        "PX"u8.CopyTo(entry);
        (entry[2], entry[3]) = (36, 1);
        Both32(entry.AsSpan(4), mode);
        Both32(entry.AsSpan(12), links);
        return entry; // of user 0 and group 0
    }
}
