using System.Buffers.Binary;
using System.Numerics;
using System.Text;

namespace Vmm.Storage.Qcow2;

/// <summary>Reads the header of an image whose bytes may be anything (qcow2.rst, "Header" and "Header extensions").</summary>
internal readonly struct Qcow2HeaderReader(string path)
{
    private const ulong MaxL1Bytes = Qcow2Header.MaxL1Bytes, MaxRefcountTableBytes = Qcow2Header.MaxRefcountTableBytes;

    private const Qcow2Incompatible Known = Qcow2Incompatible.Dirty | Qcow2Incompatible.Corrupt | Qcow2Incompatible.CompressionType
        | Qcow2Incompatible.ExtendedL2;

    internal Qcow2Header Read(ReadOnlySpan<byte> bytes)
    {
        if (!Qcow2Header.HasMagic(bytes) || bytes.Length < Qcow2Header.Version2Length)
        {
            throw Error("is not a qcow2 image: its first bytes are others; is it a raw image (format: raw)?");
        }

        Qcow2Header header = ReadFixed(bytes);
        header = ReadExtensions(header, bytes) with { BackingFile = ReadBackingName(header, bytes) };
        CheckFeatures(header);
        CheckTables(header);
        return header;
    }

    private Qcow2Header ReadFixed(ReadOnlySpan<byte> b)
    {
        uint version = U32(b, 4), clusterBits = U32(b, 20);
        if (version is not (2 or 3))
        {
            throw Error($"is qcow2 version {version}; versions 2 and 3 are known");
        }

        if (clusterBits is < Qcow2Geometry.MinClusterBits or > Qcow2Geometry.MaxClusterBits)
        {
            throw Error($"has clusters of 2^{clusterBits} bytes; 2^9 to 2^21 are allowed");
        }

        bool three = version == 3;
        uint length = three ? b.Length >= 104 ? U32(b, 100) : 0 : Qcow2Header.Version2Length;
        if (three && (length < 104 || length % 8 != 0 || length > 1u << (int)clusterBits || length > b.Length))
        {
            throw Error($"has a header of {length} bytes, which cannot be");
        }

        uint order = three ? U32(b, 96) : 4;
        var incompatible = (Qcow2Incompatible)(three ? U64(b, 72) : 0);
        if (order > 6)
        {
            throw Error($"has refcounts of 2^{order} bits; at most 64 bits are allowed");
        }

        return new Qcow2Header
        {
            Version = version,
            Geometry = new Qcow2Geometry((int)clusterBits, (int)order, (incompatible & Qcow2Incompatible.ExtendedL2) != 0),
            DiskSize = U64(b, 24),
            CryptMethod = U32(b, 32),
            L1Size = U32(b, 36),
            L1Offset = U64(b, 40),
            RefcountTableOffset = U64(b, 48),
            RefcountTableClusters = U32(b, 56),
            Snapshots = U32(b, 60),
            SnapshotsOffset = U64(b, 64),
            Incompatible = incompatible,
            Compatible = (Qcow2Compatible)(three ? U64(b, 80) : 0),
            Autoclear = (Qcow2Autoclear)(three ? U64(b, 88) : 0),
            Compression = (Qcow2Compression)(length > 104 ? b[104] : 0),
            HeaderLength = length,
        };
    }

    private Qcow2Header ReadExtensions(Qcow2Header header, ReadOnlySpan<byte> bytes)
    {
        List<Qcow2Extension> others = [];
        string? backingFormat = null;
        ulong backingName = U64(bytes, 8);
        ulong room = Math.Min((ulong)bytes.Length, header.Geometry.ClusterSize);
        int end = (int)(backingName != 0 ? Math.Min(backingName, room) : room);
        int at = (int)header.HeaderLength;
        while (end - at >= 8)
        {
            uint type = U32(bytes, at), length = U32(bytes, at + 4);
            if (type == Qcow2Header.ExtensionEnd)
            {
                break;
            }

            at += 8;
            if (length > (uint)(end - at))
            {
                throw Error($"has a header extension 0x{type:x8} of {length} bytes, which does not fit into its header");
            }

            byte[] data = bytes.Slice(at, (int)length).ToArray();
            if (type == Qcow2Header.ExtensionBackingFormat)
            {
                backingFormat = Encoding.UTF8.GetString(data);
            }
            else
            {
                others.Add(new Qcow2Extension(type, data));
            }

            at += (int)Math.Min((length + 7) & ~7u, (uint)(end - at)); // padded to eight bytes
        }

        return header with { Extensions = others, BackingFormat = backingFormat };
    }

    private string? ReadBackingName(Qcow2Header header, ReadOnlySpan<byte> bytes)
    {
        ulong offset = U64(bytes, 8);
        uint length = U32(bytes, 16);
        if (offset == 0)
        {
            return null;
        }

        if (length is 0 or > Qcow2Header.MaxBackingName || offset < header.HeaderLength
            || offset > (ulong)bytes.Length || length > (ulong)bytes.Length - offset || offset + length > header.Geometry.ClusterSize)
        {
            throw Error($"has a backing file name of {length} bytes at {offset}, which does not lie in its header");
        }

        string name = Encoding.UTF8.GetString(bytes.Slice((int)offset, (int)length));
        return name.Contains('\0', StringComparison.Ordinal) ? throw Error("has a zero byte in the name of its backing file") : name;
    }

    private void CheckFeatures(Qcow2Header header)
    {
        if (header.CryptMethod != 0)
        {
            throw Error("is encrypted; encrypted images are not supported (qemu-img convert makes a plain copy)");
        }

        if ((header.Incompatible & Qcow2Incompatible.ExternalData) != 0)
        {
            throw Error("keeps its payload in an external data file, which is not supported (qemu-img convert makes a plain copy)");
        }

        ulong unknown = (ulong)(header.Incompatible & ~Known);
        if (unknown != 0)
        {
            int bit = BitOperations.TrailingZeroCount(unknown);
            throw Error($"uses the incompatible feature {header.FeatureName(0, bit) ?? $"number {bit}"}, which is not supported");
        }

        bool typed = (header.Incompatible & Qcow2Incompatible.CompressionType) != 0;
        if (header.Compression > Qcow2Compression.Zstd || typed != (header.Compression != Qcow2Compression.Deflate))
        {
            string bit = typed ? "set" : "clear";
            throw Error($"has compression type {(byte)header.Compression}, with the feature bit {bit}: that cannot be");
        }

        if (header.Geometry is { ExtendedL2: true, ClusterBits: < 14 })
        {
            throw Error("has extended L2 entries and clusters smaller than 16 KiB, which cannot be");
        }
    }

    private void CheckTables(Qcow2Header header)
    {
        Qcow2Geometry image = header.Geometry;
        if (header.DiskSize > 1ul << 62 || header.DiskSize % 512 != 0)
        {
            throw Error($"says it is a disk of {header.DiskSize} bytes, which is not whole sectors or too much");
        }

        ulong entries = image.L1EntriesFor(header.DiskSize);
        if (entries * 8 > MaxL1Bytes || header.L1Size * 8ul > MaxL1Bytes)
        {
            throw Error($"needs an L1 table above {MaxL1Bytes >> 20} MiB; make its clusters larger (qemu-img convert -o cluster_size=2M)");
        }

        if (header.L1Size < entries || !IsPlace(image, header.L1Offset, header.L1Size * 8ul))
        {
            throw Error(
                $"has an L1 table of {header.L1Size} entries at {header.L1Offset}; a disk of {header.DiskSize} bytes needs {entries}");
        }

        ulong table = (ulong)header.RefcountTableClusters << image.ClusterBits;
        if (table == 0 || table > MaxRefcountTableBytes || !IsPlace(image, header.RefcountTableOffset, table))
        {
            uint clusters = header.RefcountTableClusters;
            throw Error($"has a refcount table of {clusters} clusters at {header.RefcountTableOffset}, which cannot be");
        }
    }

    // The header is in the first cluster; no table may be.
    private static bool IsPlace(Qcow2Geometry image, ulong offset, ulong length) =>
        length == 0 || (image.IsAligned(offset) && offset != 0 && offset <= long.MaxValue - length);

    private BlockException Error(string what) => new(BlockErrorKind.NotADisk, $"disk {path} {what}") { Path = path };

    private static uint U32(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt32BigEndian(bytes[at..]);

    private static ulong U64(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt64BigEndian(bytes[at..]);
}
