using System.Buffers.Binary;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>
/// Switches an image from one set of tables to another: the fields that say where the tables lie, how large the disk is and in which state
/// the image is all lie in the first sector, which is written at once. What else is in the header stays.
/// </summary>
internal static class HeaderPatch
{
    private const int Sector = 512;

    /// <summary>Writes the fields of <paramref name="header"/> over those of the file. Does not flush.</summary>
    internal static void Write(IImageFile file, Qcow2Header header)
    {
        byte[] sector = new byte[Sector];
        file.Read(sector, 0);
        U64(sector, 24, header.DiskSize);
        U32(sector, 36, header.L1Size);
        U64(sector, 40, header.L1Offset);
        U64(sector, 48, header.RefcountTableOffset);
        U32(sector, 56, header.RefcountTableClusters);
        if (header.Version == 3)
        {
            U64(sector, 72, (ulong)header.Incompatible);
            U64(sector, 80, (ulong)header.Compatible);
            U64(sector, 88, (ulong)header.Autoclear);
        }

        file.Write(sector, 0);
    }

    private static void U32(byte[] bytes, int at, uint value) => BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(at), value);

    private static void U64(byte[] bytes, int at, ulong value) => BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(at), value);
}
