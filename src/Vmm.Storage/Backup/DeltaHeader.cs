using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace Vmm.Storage.Backup;

/// <summary>Whose delta it is, of which disk, and what it stands on: the first 512 bytes of the file.</summary>
internal sealed record DeltaHeader
{
    private const int NameOffset = 112, HashOffset = DeltaFormat.HeaderBytes - DeltaFormat.HashBytes;

    private static readonly byte[] s_magic = "VMMDELTA"u8.ToArray();

    /// <summary>The disk's name, such as <c>disk0</c>.</summary>
    internal required string Disk { get; init; }

    /// <summary>Bytes of the disk.</summary>
    internal required ulong DiskBytes { get; init; }

    /// <summary>Whose disk it is.</summary>
    internal required Guid Owner { get; init; }

    /// <summary>The point that it belongs to.</summary>
    internal required Guid Point { get; init; }

    /// <summary>The point that it stands on; empty for a full one.</summary>
    internal Guid Parent { get; init; }

    /// <summary>The root of the disk's tree at that point; zeros for a full one.</summary>
    internal byte[] ParentRoot { get; init; } = new byte[DeltaFormat.HashBytes];

    /// <summary>True when it stands on nothing.</summary>
    internal bool IsFull => Parent == Guid.Empty;

    /// <summary>The header as bytes.</summary>
    internal byte[] Encode()
    {
        byte[] bytes = new byte[DeltaFormat.HeaderBytes];
        s_magic.CopyTo(bytes, 0);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(8), DeltaFormat.Version);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(12), DeltaFormat.HeaderBytes);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(16), DiskBytes);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(24), DeltaFormat.ExtentBytes);
        _ = Owner.TryWriteBytes(bytes.AsSpan(32), bigEndian: true, out _);
        _ = Point.TryWriteBytes(bytes.AsSpan(48), bigEndian: true, out _);
        _ = Parent.TryWriteBytes(bytes.AsSpan(64), bigEndian: true, out _);
        ParentRoot.CopyTo(bytes, 80);
        bytes[NameOffset] = (byte)Disk.Length;
        _ = Encoding.ASCII.GetBytes(Disk, bytes.AsSpan(NameOffset + 1));
        _ = SHA256.HashData(bytes.AsSpan(0, HashOffset), bytes.AsSpan(HashOffset));
        return bytes;
    }

    /// <summary>Reads a header.</summary>
    /// <exception cref="BlockException">It is none, is damaged, or of a version that is not known.</exception>
    internal static DeltaHeader Parse(ReadOnlySpan<byte> bytes, string path)
    {
        if (bytes.Length < DeltaFormat.HeaderBytes || !bytes[..8].SequenceEqual(s_magic))
        {
            throw DeltaFormat.Damaged(path, "it does not begin as a sealed delta");
        }

        uint version = BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..]);
        if (version != DeltaFormat.Version)
        {
            throw new BlockException(
                BlockErrorKind.NotADisk,
                $"backup file {path} has version {version} of the format; this program reads {DeltaFormat.Version}")
            { Path = path };
        }

        if (!SHA256.HashData(bytes[..HashOffset]).AsSpan().SequenceEqual(bytes[HashOffset..DeltaFormat.HeaderBytes]))
        {
            throw DeltaFormat.Damaged(path, "its header does not match its hash");
        }

        int length = bytes[NameOffset];
        string name = length <= DeltaFormat.MostNameBytes ? Encoding.ASCII.GetString(bytes.Slice(NameOffset + 1, length)) : "";
        DeltaHeader header = new()
        {
            Disk = name,
            DiskBytes = BinaryPrimitives.ReadUInt64LittleEndian(bytes[16..]),
            Owner = new Guid(bytes.Slice(32, 16), bigEndian: true),
            Point = new Guid(bytes.Slice(48, 16), bigEndian: true),
            Parent = new Guid(bytes.Slice(64, 16), bigEndian: true),
            ParentRoot = bytes.Slice(80, DeltaFormat.HashBytes).ToArray(),
        };
        string? problem = !DeltaFormat.IsName(name) ? "its disk has no name"
            : header.DiskBytes == 0 || header.DiskBytes % 512 != 0 || header.DiskBytes > DeltaFormat.MostDiskBytes
                ? $"a disk of {header.DiskBytes} bytes"
            : BinaryPrimitives.ReadUInt32LittleEndian(bytes[12..]) != DeltaFormat.HeaderBytes
                || BinaryPrimitives.ReadUInt32LittleEndian(bytes[24..]) != DeltaFormat.ExtentBytes ? "sizes that version 1 has not"
            : bytes[28..32].ContainsAnyExcept((byte)0) || bytes[(NameOffset + 1 + length)..HashOffset].ContainsAnyExcept((byte)0)
                ? "what is reserved is not zero"
            : header.Point == Guid.Empty || header.Point == header.Parent ? "its point cannot be"
            : null;
        return problem is null ? header : throw DeltaFormat.Damaged(path, problem);
    }
}
