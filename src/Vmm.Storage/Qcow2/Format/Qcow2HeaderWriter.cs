using System.Buffers.Binary;
using System.Text;

namespace Vmm.Storage.Qcow2;

/// <summary>Writes a header with its extensions and the name of the backing file behind them.</summary>
internal static class Qcow2HeaderWriter
{
    internal static void Write(Qcow2Header header, Span<byte> cluster)
    {
        bool three = header.Version == 3;
        int at = three ? (int)Math.Max(header.HeaderLength, Qcow2Header.Version3Length) : Qcow2Header.Version2Length;
        WriteFixed(header, cluster, at);
        if (header.BackingFormat is { } format)
        {
            WriteExtension(header, cluster, ref at, Qcow2Header.ExtensionBackingFormat, Encoding.UTF8.GetBytes(format));
        }

        foreach (Qcow2Extension extension in header.Extensions)
        {
            WriteExtension(header, cluster, ref at, extension.Type, extension.Data.Span);
        }

        WriteExtension(header, cluster, ref at, Qcow2Header.ExtensionEnd, []);
        if (header.BackingFile is { } name)
        {
            byte[] bytes = Encoding.UTF8.GetBytes(name);
            if (bytes.Length > Qcow2Header.MaxBackingName || bytes.Length > cluster.Length - at)
            {
                throw TooLong($"the name of its backing file has {bytes.Length} bytes");
            }

            bytes.CopyTo(cluster[at..]);
            U64(cluster, 8, (ulong)at);
            U32(cluster, 16, (uint)bytes.Length);
        }
    }

    private static void WriteFixed(Qcow2Header header, Span<byte> b, int length)
    {
        U32(b, 0, Qcow2Header.Magic);
        U32(b, 4, header.Version);
        U32(b, 20, (uint)header.Geometry.ClusterBits);
        U64(b, 24, header.DiskSize);
        U32(b, 32, header.CryptMethod);
        U32(b, 36, header.L1Size);
        U64(b, 40, header.L1Offset);
        U64(b, 48, header.RefcountTableOffset);
        U32(b, 56, header.RefcountTableClusters);
        U32(b, 60, header.Snapshots);
        U64(b, 64, header.SnapshotsOffset);
        if (header.Version == 3)
        {
            U64(b, 72, (ulong)header.Incompatible);
            U64(b, 80, (ulong)header.Compatible);
            U64(b, 88, (ulong)header.Autoclear);
            U32(b, 96, (uint)header.Geometry.RefcountOrder);
            U32(b, 100, (uint)length);
            b[104] = (byte)header.Compression;
        }
    }

    private static void WriteExtension(Qcow2Header header, Span<byte> cluster, ref int at, uint type, ReadOnlySpan<byte> data)
    {
        int room = 8 + ((data.Length + 7) & ~7);
        if (room > cluster.Length - at)
        {
            throw TooLong($"its header extensions do not fit into a cluster of {header.Geometry.ClusterSize} bytes");
        }

        U32(cluster, at, type);
        U32(cluster, at + 4, (uint)data.Length);
        data.CopyTo(cluster[(at + 8)..]);
        at += room;
    }

    private static BlockException TooLong(string what) =>
        new(BlockErrorKind.NotADisk, $"the header of the image cannot be written: {what}");

    private static void U32(Span<byte> bytes, int at, uint value) => BinaryPrimitives.WriteUInt32BigEndian(bytes[at..], value);

    private static void U64(Span<byte> bytes, int at, ulong value) => BinaryPrimitives.WriteUInt64BigEndian(bytes[at..], value);
}
