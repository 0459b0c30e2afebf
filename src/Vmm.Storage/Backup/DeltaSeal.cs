using System.Buffers.Binary;
using System.Security.Cryptography;

namespace Vmm.Storage.Backup;

/// <summary>The last 128 bytes of a delta. They come last and say how long all is: a file that ends early has none.</summary>
internal sealed record DeltaSeal
{
    private const int HashOffset = DeltaFormat.SealBytes - DeltaFormat.HashBytes;

    private static readonly byte[] s_magic = "VMMSEAL1"u8.ToArray();

    /// <summary>Entries of the table.</summary>
    internal required ulong Entries { get; init; }

    /// <summary>Where the table begins: behind the header and all stored bytes.</summary>
    internal required ulong TableOffset { get; init; }

    /// <summary>SHA-256 of the table.</summary>
    internal required byte[] TableHash { get; init; }

    /// <summary>The root of the disk's tree at this point (<see cref="DiskTree"/>).</summary>
    internal required byte[] Root { get; init; }

    /// <summary>The hash of header and seal: the name of this file's content.</summary>
    internal byte[] Hash { get; private init; } = [];

    /// <summary>The seal as bytes.</summary>
    internal byte[] Encode(ReadOnlySpan<byte> header)
    {
        byte[] bytes = new byte[DeltaFormat.SealBytes];
        s_magic.CopyTo(bytes, 0);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(8), Entries);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(16), TableOffset);
        TableHash.CopyTo(bytes, 32);
        Root.CopyTo(bytes, 64);
        HashOf(header, bytes).CopyTo(bytes, HashOffset);
        return bytes;
    }

    /// <summary>Reads a seal.</summary>
    /// <exception cref="BlockException">It is none, is damaged, or belongs to another header or a file of another length.</exception>
    internal static DeltaSeal Parse(ReadOnlySpan<byte> bytes, ReadOnlySpan<byte> header, ulong fileBytes, string path)
    {
        if (bytes.Length != DeltaFormat.SealBytes || !bytes[..8].SequenceEqual(s_magic))
        {
            throw DeltaFormat.Damaged(path, "it has no seal at its end: it was cut, or never finished");
        }

        byte[] hash = HashOf(header, bytes);
        if (!hash.AsSpan().SequenceEqual(bytes[HashOffset..]))
        {
            throw DeltaFormat.Damaged(path, "its seal does not match its hash");
        }

        ulong entries = BinaryPrimitives.ReadUInt64LittleEndian(bytes[8..]);
        ulong table = BinaryPrimitives.ReadUInt64LittleEndian(bytes[16..]);
        ulong room = fileBytes - DeltaFormat.HeaderBytes - DeltaFormat.SealBytes;
        if (bytes[24..32].ContainsAnyExcept((byte)0) || entries > room / DeltaFormat.EntryBytes
            || table != fileBytes - DeltaFormat.SealBytes - (entries * DeltaFormat.EntryBytes))
        {
            throw DeltaFormat.Damaged(path, "its length is not what its seal says");
        }

        return new DeltaSeal
        {
            Entries = entries,
            TableOffset = table,
            TableHash = bytes.Slice(32, DeltaFormat.HashBytes).ToArray(),
            Root = bytes.Slice(64, DeltaFormat.HashBytes).ToArray(),
            Hash = hash,
        };
    }

    private static byte[] HashOf(ReadOnlySpan<byte> header, ReadOnlySpan<byte> seal)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(header);
        hash.AppendData(seal[..HashOffset]);
        return hash.GetHashAndReset();
    }
}
