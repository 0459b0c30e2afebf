using System.Buffers.Binary;
using System.Globalization;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Testing.Images;

namespace Vmm.Storage.Tests.Qcow2Tools;

/// <summary>Small sound images of several kinds, and damages of them.</summary>
internal static class HostileImages
{
    // Values that are known to hurt.
    private static readonly ulong[] s_values =
    [
        0, 1, 0x200, 0x10000, uint.MaxValue, 1ul << 62, 1ul << 63, ulong.MaxValue, 0x00ff_ffff_ffff_fe00, 0x4000_0000_0001_0000,
    ];

    /// <summary>With payload, zeros and compressed clusters.</summary>
    internal static byte[][] Sound { get; } = [Small(9, 4, false), Small(12, 0, false), Small(14, 4, true), Small(16, 6, false)];

    // Bytes of each image in its header and tables; no more than the first of each.
    private static int[][] MetadataPlaces { get; } = [.. Sound.Select(i => Metadata(i).ToArray())];

    /// <summary>Each field of the header, its extensions, and some entries of each table, with each of some values.</summary>
    internal static IEnumerable<(byte[] Image, string What)> WithFieldsDamaged(byte[] sound, Random random)
    {
        foreach ((int at, int size) in Fields(sound, random))
        {
            foreach (ulong value in s_values)
            {
                byte[] image = (byte[])sound.Clone();
                for (int i = 0; i < size; i++)
                {
                    image[at + i] = (byte)(value >> ((size - 1 - i) * 8));
                }

                yield return (image, $"{size} bytes at {at}: 0x{value:x}");
            }
        }
    }

    /// <summary>One with some random damages, most of them in its header and tables. Large kinds are rarer: they take more time.</summary>
    internal static byte[] Random(Random random)
    {
        int kind = random.Next(20) switch { < 9 => 0, < 16 => 1, < 19 => 2, _ => 3 };
        byte[] image = (byte[])Sound[kind].Clone();
        for (int n = random.Next(1, 20); n > 0; n--)
        {
            int[] metadata = MetadataPlaces[kind];
            int at = random.Next(4) == 0 ? random.Next(image.Length) : metadata[random.Next(metadata.Length)];
            if (random.Next(4) == 0)
            {
                BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(at & ~7), s_values[random.Next(s_values.Length)]);
            }
            else
            {
                image[at] = (byte)random.Next(256);
            }
        }

        return image;
    }

    /// <summary>A number from the environment; null without.</summary>
    internal static int? Number(string variable) => Environment.GetEnvironmentVariable(variable) is { } text
        ? int.Parse(text, CultureInfo.InvariantCulture)
        : null;

    // All of the header, its extensions, and some entries of each table.
    private static IEnumerable<(int At, int Size)> Fields(byte[] image, Random random)
    {
        for (int at = 0; at < 160; at += 4)
        {
            yield return (at, 4);
        }

        for (int at = 8; at < 104; at += 8)
        {
            yield return (at, 8);
        }

        Qcow2Header header = Qcow2Header.Parse(image, "image");
        int clusters = image.Length >> header.Geometry.ClusterBits;
        for (int i = 0; i < 60; i++)
        {
            int entry = random.Next(Math.Min(64, (int)header.Geometry.ClusterSize / 8));
            yield return ((random.Next(clusters) << header.Geometry.ClusterBits) + (entry * 8), 8);
        }

        yield return ((int)header.L1Offset, 8);
        yield return ((int)header.RefcountTableOffset, 8);
    }

    private static IEnumerable<int> Metadata(byte[] image)
    {
        Qcow2Header header = Qcow2Header.Parse(image, "image");
        List<(int At, int Bytes)> tables =
        [
            (0, 160),
            ((int)header.L1Offset, (int)header.L1Size * 8),
            ((int)header.RefcountTableOffset, 64),
        ];
        tables.AddRange(Named(image, (int)header.L1Offset, (int)header.L1Size).Select(table => (table, 256)));
        tables.AddRange(Named(image, (int)header.RefcountTableOffset, 8).Select(block => (block, 64)));
        return tables.SelectMany(t => Enumerable.Range(t.At, t.Bytes));
    }

    // Where the entries of a table lead.
    private static IEnumerable<int> Named(byte[] image, int table, int entries) => Enumerable.Range(0, entries)
        .Select(i => (int)(BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(table + (i * 8))) & 0x00ff_ffff_ffff_fe00))
        .Where(at => at != 0);

    // An image with payload, zeros and compressed clusters.
    private static byte[] Small(int clusterBits, int order, bool extended)
    {
        using ByteImage file = new([]);
        Qcow2CreateOptions options = new() { DiskSize = 1 << 20, ClusterBits = clusterBits, RefcountOrder = order, ExtendedL2 = extended };
        Qcow2Builder builder = new(file, options);
        byte[] cluster = new byte[1 << clusterBits];
        using ClusterCodec codec = new(Qcow2Compression.Deflate);
        for (ulong i = 0; i < 12 && i << clusterBits < options.DiskSize; i++)
        {
            cluster.AsSpan().Fill((byte)(i + 1));
            switch (i % 3)
            {
                case 0: builder.AddData(i << clusterBits, cluster); break;
                case 1: builder.AddCompressed(i << clusterBits, codec.Compress(cluster)!); break;
                default: builder.AddZeros(i << clusterBits); break;
            }
        }

        builder.Finish(ToolProgress.None);
        byte[] bytes = new byte[file.Length];
        file.Read(bytes, 0);
        return bytes;
    }
}
