using System.Buffers.Binary;
using System.Text;

namespace Vmm.Storage.Qcow2;

/// <summary>An extension of the header that this program keeps as it is.</summary>
/// <param name="Type">Its number.</param>
/// <param name="Data">Its bytes.</param>
public sealed record Qcow2Extension(uint Type, ReadOnlyMemory<byte> Data);

/// <summary>
/// The header of a qcow2 image, versions 2 and 3, with its extensions and the name of the backing file. It was checked against the format's
/// bounds, not yet against the rest of the file. Offsets and sizes in bytes.
/// </summary>
public sealed record Qcow2Header
{
    /// <summary>The first four bytes of an image.</summary>
    public const uint Magic = 0x514649fb; // "QFI\xfb"

    /// <summary>Bytes of the header of a version 2 image, and of a version 3 image as written here.</summary>
    public const int Version2Length = 72, Version3Length = 112;

    /// <summary>Longest name of a backing file, in bytes (qcow2.rst, byte 16).</summary>
    public const int MaxBackingName = 1023;

    /// <summary>Largest tables that this program takes, beside the format's own bounds: as QEMU does.</summary>
    public const ulong MaxL1Bytes = 32 << 20, MaxRefcountTableBytes = 8 << 20;

    /// <summary>Numbers of the known extensions.</summary>
    public const uint ExtensionEnd = 0, ExtensionBackingFormat = 0xe2792aca, ExtensionFeatureNames = 0x6803f857,
        ExtensionBitmaps = 0x23852875, ExtensionEncryption = 0x0537be77, ExtensionDataFile = 0x44415441;

    /// <summary>2 or 3.</summary>
    public uint Version { get; init; } = 3;

    /// <summary>Sizes of clusters, tables and refcounts.</summary>
    public required Qcow2Geometry Geometry { get; init; }

    /// <summary>Bytes of the disk.</summary>
    public ulong DiskSize { get; init; }

    /// <summary>Name of the backing file as the image gives it; null without one.</summary>
    public string? BackingFile { get; init; }

    /// <summary>Format of the backing file as the image gives it; null when it does not.</summary>
    public string? BackingFormat { get; init; }

    /// <summary>0 is none; images that are encrypted are refused.</summary>
    public uint CryptMethod { get; init; }

    /// <summary>Entries of the L1 table.</summary>
    public uint L1Size { get; init; }

    /// <summary>Where it lies.</summary>
    public ulong L1Offset { get; init; }

    /// <summary>Where the refcount table lies.</summary>
    public ulong RefcountTableOffset { get; init; }

    /// <summary>Its clusters.</summary>
    public uint RefcountTableClusters { get; init; }

    /// <summary>Internal snapshots.</summary>
    public uint Snapshots { get; init; }

    /// <summary>Where their table lies.</summary>
    public ulong SnapshotsOffset { get; init; }

    /// <summary>What a reader has to know.</summary>
    public Qcow2Incompatible Incompatible { get; init; }

    /// <summary>What it may ignore.</summary>
    public Qcow2Compatible Compatible { get; init; }

    /// <summary>What a writer that does not know it clears.</summary>
    public Qcow2Autoclear Autoclear { get; init; }

    /// <summary>How compressed clusters are compressed.</summary>
    public Qcow2Compression Compression { get; init; }

    /// <summary>Bytes of the header itself.</summary>
    public uint HeaderLength { get; init; } = Version3Length;

    /// <summary>The extensions other than the backing format, as they are.</summary>
    public IReadOnlyList<Qcow2Extension> Extensions { get; init; } = [];

    /// <summary>True when the bytes begin as those of a qcow2 image do.</summary>
    public static bool HasMagic(ReadOnlySpan<byte> bytes) => bytes.Length >= 4 && BinaryPrimitives.ReadUInt32BigEndian(bytes) == Magic;

    /// <summary>
    /// The first cluster of an image: header, extensions, name of the backing file. The rest is zeros.
    /// </summary>
    /// <exception cref="BlockException">They do not fit into a cluster.</exception>
    public byte[] Encode()
    {
        byte[] cluster = new byte[Geometry.ClusterSize];
        Qcow2HeaderWriter.Write(this, cluster);
        return cluster;
    }

    /// <summary>Reads and checks the header.</summary>
    /// <param name="bytes">The beginning of the file: a cluster, or what there is of it.</param>
    /// <param name="path">The file, for errors.</param>
    /// <exception cref="BlockException">It is not an image, or not one that this program can read; the message says why.</exception>
    public static Qcow2Header Parse(ReadOnlySpan<byte> bytes, string path) => new Qcow2HeaderReader(path).Read(bytes);

    /// <summary>The names of features that the image itself gives.</summary>
    /// <param name="kind">0 incompatible, 1 compatible, 2 autoclear.</param>
    /// <param name="bit">The feature's bit.</param>
    public string? FeatureName(byte kind, int bit)
    {
        foreach (Qcow2Extension extension in Extensions)
        {
            ReadOnlySpan<byte> names = extension.Type == ExtensionFeatureNames ? extension.Data.Span : default;
            for (; names.Length >= 48; names = names[48..])
            {
                if (names[0] == kind && names[1] == bit)
                {
                    return Encoding.UTF8.GetString(names[2..48].TrimEnd((byte)0));
                }
            }
        }

        return null;
    }
}
