using System.Buffers.Binary;
using System.Security.Cryptography;
using Vmm.Storage.Backup;

namespace Vmm.Storage.Replicas;

/// <summary>Numbers of a tree file (docs/replica-format.md), and its header.</summary>
internal static class TreeFormat
{
    /// <summary>Leaves of a node.</summary>
    internal const int LeavesOfNode = 4096;

    /// <summary>Bytes of the leaves of a node.</summary>
    internal const int PageBytes = LeavesOfNode * DeltaFormat.HashBytes;

    /// <summary>Where the nodes begin.</summary>
    internal const int NodesOffset = 4096;

    /// <summary>Where the leaves begin: behind room for the nodes of the largest disk.</summary>
    internal const ulong LeavesOffset = NodesOffset
        + (DeltaFormat.MostDiskBytes / DeltaFormat.ExtentBytes / LeavesOfNode * DeltaFormat.HashBytes);

    /// <summary>Bytes of the header that say something.</summary>
    internal const int HeaderBytes = HashOffset + DeltaFormat.HashBytes;

    private const int HashOffset = 112;
    private const uint Version = 1;

    private static readonly byte[] s_magic = "VMMTREE1"u8.ToArray();

    /// <summary>A node of leaves of zeros.</summary>
    internal static byte[] ZeroNode { get; } = HashOf(new byte[PageBytes], new byte[PageBytes]);

    /// <summary>Nodes of a disk.</summary>
    internal static int NodesOf(ulong diskBytes) => (int)((DeltaFormat.ExtentsOf(diskBytes) + LeavesOfNode - 1) / LeavesOfNode);

    /// <summary>The hash of a node.</summary>
    /// <param name="page">Its leaves as the file has them: the leaf of zeros is all zeros there.</param>
    /// <param name="scratch">As large; gets the leaves as they are.</param>
    internal static byte[] HashOf(ReadOnlySpan<byte> page, Span<byte> scratch)
    {
        page.CopyTo(scratch);
        Expand(scratch);
        return SHA256.HashData(scratch);
    }

    /// <summary>Leaves as the file has them become leaves as they are.</summary>
    internal static void Expand(Span<byte> leaves)
    {
        for (int at = 0; at < leaves.Length; at += DeltaFormat.HashBytes)
        {
            Span<byte> leaf = leaves.Slice(at, DeltaFormat.HashBytes);
            if (!leaf.ContainsAnyExcept((byte)0))
            {
                DeltaFormat.ZeroLeaf.CopyTo(leaf);
            }
        }
    }

    /// <summary>The root of a disk: of its size and all nodes.</summary>
    /// <param name="diskBytes">The size.</param>
    /// <param name="nodes">The nodes as the file has them.</param>
    internal static byte[] RootOf(ulong diskBytes, ReadOnlySpan<byte> nodes)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        Span<byte> size = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(size, diskBytes);
        hash.AppendData(size);
        for (int at = 0; at < nodes.Length; at += DeltaFormat.HashBytes)
        {
            ReadOnlySpan<byte> node = nodes.Slice(at, DeltaFormat.HashBytes);
            hash.AppendData(node.ContainsAnyExcept((byte)0) ? node : ZeroNode);
        }

        return hash.GetHashAndReset();
    }

    /// <summary>The header as bytes.</summary>
    internal static byte[] Encode(in TreeHeader header)
    {
        byte[] bytes = new byte[HeaderBytes];
        s_magic.CopyTo(bytes, 0);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(8), Version);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(12), NodesOffset);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(16), header.DiskBytes);
        _ = header.Point.TryWriteBytes(bytes.AsSpan(48), bigEndian: true, out _);
        _ = header.Pending.TryWriteBytes(bytes.AsSpan(64), bigEndian: true, out _);
        header.Root.CopyTo(bytes, 80);
        _ = SHA256.HashData(bytes.AsSpan(0, HashOffset), bytes.AsSpan(HashOffset));
        return bytes;
    }

    /// <summary>Reads a header.</summary>
    /// <exception cref="BlockException">It is none, is damaged, or of a version that is not known.</exception>
    internal static TreeHeader Parse(ReadOnlySpan<byte> bytes, string path)
    {
        if (bytes.Length < HeaderBytes || !bytes[..8].SequenceEqual(s_magic))
        {
            throw ReplicaError.Damaged(path, "it does not begin as a tree file");
        }

        uint version = BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..]);
        if (version != Version)
        {
            throw ReplicaError.Damaged(path, $"it has version {version} of the format; this program reads {Version}");
        }

        TreeHeader header = new(
            BinaryPrimitives.ReadUInt64LittleEndian(bytes[16..]),
            new Guid(bytes.Slice(48, 16), bigEndian: true),
            new Guid(bytes.Slice(64, 16), bigEndian: true),
            bytes.Slice(80, DeltaFormat.HashBytes).ToArray());
        string? problem = !SHA256.HashData(bytes[..HashOffset]).AsSpan().SequenceEqual(bytes[HashOffset..HeaderBytes])
                ? "its header does not match its hash"
            : header.DiskBytes == 0 || header.DiskBytes % 512 != 0 || header.DiskBytes > DeltaFormat.MostDiskBytes
                ? $"a disk of {header.DiskBytes} bytes"
            : BinaryPrimitives.ReadUInt32LittleEndian(bytes[12..]) != NodesOffset || bytes[24..48].ContainsAnyExcept((byte)0)
                ? "what is reserved is not as in version 1"
            : null;
        return problem is null ? header : throw ReplicaError.Damaged(path, problem);
    }
}
