using System.Buffers.Binary;
using System.Text;

namespace Vmm.Storage.Seeds;

/// <summary>
/// A seed disk for cloud-init (its data source NoCloud): an ISO 9660 volume named <c>cidata</c> with a few files in its root. Their real
/// names are in Rock Ridge entries (IEEE P1282), since ISO 9660 knows no small letters. The same files are the same bytes.
/// </summary>
public static class SeedVolume
{
    /// <summary>Bytes of a sector.</summary>
    public const int SectorBytes = 2048;

    private const string Label = "cidata";
    private const int PrimarySector = 16, LittlePathsSector = 18, BigPathsSector = 19, RootSector = 20, ReferenceSector = 21,
        FirstFileSector = 22; // ECMA-119 section 6.2: what comes before is the system's

    private static readonly string[] s_names = // in the order of the names that ISO 9660 gets
        [SeedFile.MetaData, SeedFile.NetworkConfig, SeedFile.UserData, SeedFile.VendorData];

    /// <summary>Makes the disk.</summary>
    /// <param name="files">Each name at most once.</param>
    /// <exception cref="ArgumentException">A file has a name that cloud-init does not look for, comes twice, or is too large.</exception>
    public static byte[] Make(IReadOnlyList<SeedFile> files)
    {
        List<SeedFile> sorted = [.. files.OrderBy(file => Array.IndexOf(s_names, file.Name))];
        for (int i = 0; i < sorted.Count; i++)
        {
            if (!s_names.Contains(sorted[i].Name, StringComparer.Ordinal) || sorted[i].Content.Length > SeedFile.MostBytes
                || (i > 0 && string.Equals(sorted[i - 1].Name, sorted[i].Name, StringComparison.Ordinal)))
            {
                throw new ArgumentException(
                    $"{sorted[i].Name}: no file of a seed, there twice, or larger than {SeedFile.MostBytes} bytes", nameof(files));
            }
        }

        int sectors = FirstFileSector + sorted.Sum(file => Sectors(file.Content.Length));
        byte[] volume = new byte[sectors * SectorBytes];
        WriteDescriptors(volume, sectors);
        WritePaths(volume);
        WriteRoot(volume, sorted);
        SeedRecord.WriteReference(At(volume, ReferenceSector));
        int sector = FirstFileSector;
        foreach (SeedFile file in sorted)
        {
            file.Content.Span.CopyTo(At(volume, sector));
            sector += Sectors(file.Content.Length);
        }

        return volume;
    }

    // ECMA-119 section 8.4, and the terminator of section 8.3.
    private static void WriteDescriptors(byte[] volume, int sectors)
    {
        Span<byte> primary = At(volume, PrimarySector)[..SectorBytes];
        primary[0] = 1;
        "CD001\u0001"u8.CopyTo(primary[1..]);
        primary.Slice(8, 64).Fill((byte)' ');
        Encoding.ASCII.GetBytes(Label, primary[40..]);
        SeedRecord.Both32(primary[80..], (uint)sectors);
        SeedRecord.Both16(primary[120..], 1);
        SeedRecord.Both16(primary[124..], 1);
        SeedRecord.Both16(primary[128..], SectorBytes);
        SeedRecord.Both32(primary[132..], 10);
        BinaryPrimitives.WriteUInt32LittleEndian(primary[140..], LittlePathsSector);
        BinaryPrimitives.WriteUInt32BigEndian(primary[148..], BigPathsSector);
        SeedRecord.Write(primary[156..], RootSector, SectorBytes, isFolder: true, [0], []);
        primary[190..813].Fill((byte)' ');
        for (int date = 813; date < 881; date += 17)
        {
            primary.Slice(date, 16).Fill((byte)'0'); // not given
        }

        primary[881] = 1;
        Span<byte> terminator = At(volume, PrimarySector + 1);
        terminator[0] = 255;
        "CD001\u0001"u8.CopyTo(terminator[1..]);
    }

    // One entry, the root's (ECMA-119 section 9.4).
    private static void WritePaths(byte[] volume)
    {
        Span<byte> little = At(volume, LittlePathsSector), big = At(volume, BigPathsSector);
        (little[0], big[0]) = (1, 1);
        BinaryPrimitives.WriteUInt32LittleEndian(little[2..], RootSector);
        BinaryPrimitives.WriteUInt16LittleEndian(little[6..], 1);
        BinaryPrimitives.WriteUInt32BigEndian(big[2..], RootSector);
        BinaryPrimitives.WriteUInt16BigEndian(big[6..], 1);
    }

    private static void WriteRoot(byte[] volume, List<SeedFile> files)
    {
        Span<byte> root = At(volume, RootSector)[..SectorBytes];
        int at = SeedRecord.Write(root, RootSector, SectorBytes, isFolder: true, [0], SeedRecord.OfRoot(ReferenceSector));
        at += SeedRecord.Write(root[at..], RootSector, SectorBytes, isFolder: true, [1], SeedRecord.OfFolder());
        int sector = FirstFileSector;
        foreach (SeedFile file in files)
        {
            byte[] name = Encoding.ASCII.GetBytes(file.Name.ToUpperInvariant().Replace("-", "", StringComparison.Ordinal)[..8] + ".;1");
            int length = file.Content.Length;
            at += SeedRecord.Write(
                root[at..], (uint)(length == 0 ? 0 : sector), (uint)length, isFolder: false, name, SeedRecord.OfFile(file.Name));
            sector += Sectors(length);
        }
    }

    private static int Sectors(int bytes) => (bytes + SectorBytes - 1) / SectorBytes;

    private static Span<byte> At(byte[] volume, int sector) => volume.AsSpan(sector * SectorBytes);
}
