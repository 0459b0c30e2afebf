using System.Buffers.Binary;
using System.Numerics;
using Vmm.Interop;

namespace Vmm.Storage.Changes;

/// <summary>Places and numbers of a change log's file (docs/change-log-format.md). All integers are little-endian.</summary>
internal static class ChangeLogLayout
{
    /// <summary>Bytes of the disk that have one bit.</summary>
    internal const int ExtentBytes = 64 * 1024;

    /// <summary>Bytes of an area of the activity log.</summary>
    internal const int AreaBytes = 4 << 20;

    /// <summary>
    /// Hot areas at a time: 8 GiB. So much is taken for written after a power cut, a minute at 1 Gbit/s; and a guest whose writes go to no
    /// more places than these waits for the log only when it comes to a new one.
    /// </summary>
    internal const int Slots = 2048;

    /// <summary>Most bytes of a disk. Bounds the address space of a log to 256 MiB.</summary>
    internal const ulong MostDiskBytes = 1ul << 46;

    /// <summary>Bytes of the disk for which one page of a bitmap has bits.</summary>
    internal const ulong PageCovers = (ulong)PageBytes * 8 * ExtentBytes;

    internal const int PageBytes = 4096;

    /// <summary>Where the record of vmmd ends, and the words of the worker begin.</summary>
    internal const int RecordBytes = 512;

    // Words of the worker. In one sector, which a power cut leaves whole.
    internal const int CurrentAt = 512, PendingInUseAt = 516, CurrentUnknownAt = 520, PendingUnknownAt = 524;
    internal const int CoveredAt = 528, RoomAt = 536, CutsAt = 544, LiveEnd = 552;

    /// <summary>Where the activity log begins: a number for each slot, the area's plus one; 0 is none.</summary>
    internal const int SlotsAt = 4096;

    /// <summary>Where the bitmaps begin. Pages of the two take turns, so that a file that grows has no page to move.</summary>
    internal const int BitmapsAt = 16384;

    internal static ReadOnlySpan<byte> Magic => "VMMCHLOG"u8;

    internal const uint Version = 1;

    /// <summary>Pages that one bitmap needs.</summary>
    internal static int PagesFor(ulong diskBytes) => (int)((diskBytes + PageCovers - 1) / PageCovers);

    /// <summary>Bytes of the file.</summary>
    internal static ulong FileBytes(ulong diskBytes) => BitmapsAt + ((ulong)PagesFor(diskBytes) * 2 * PageBytes);

    /// <summary>Where a page of one of the bitmaps begins.</summary>
    internal static ulong PageAt(int page, uint bitmap) => BitmapsAt + ((((ulong)page * 2) + bitmap) * PageBytes);

    internal static ulong ExtentsOf(ulong diskBytes) => (diskBytes + ExtentBytes - 1) / ExtentBytes;

    /// <summary>The reason of a word that anybody may have written.</summary>
    internal static ChangeUnknown Reason(uint word) =>
        word <= (uint)ChangeUnknown.Stopped ? (ChangeUnknown)word : ChangeUnknown.Damaged;
}

/// <summary>The first sector of the file, which vmmd alone writes.</summary>
/// <param name="Generation">Counts the beginnings of the log.</param>
/// <param name="DiskBytes">Bytes of the disk.</param>
/// <param name="IsOpen">A worker has it, or had it when everything ended.</param>
/// <param name="Boot">The boot of the host in which it was opened.</param>
/// <param name="OpenBytes">Bytes of the disk when it was opened: what it grew by since may not be marked after a power cut.</param>
/// <param name="Stamp">What the disk's top file was like when it was closed; null: it has none, or it is open.</param>
internal readonly record struct ChangeLogRecord(
    ulong Generation, ulong DiskBytes, bool IsOpen, Guid Boot, ulong OpenBytes, FileStamp? Stamp)
{
    private const int SumAt = 480;

    internal byte[] Encode()
    {
        byte[] sector = new byte[ChangeLogLayout.RecordBytes];
        ChangeLogLayout.Magic.CopyTo(sector);
        Put32(sector, 8, ChangeLogLayout.Version);
        Put32(sector, 12, ChangeLogLayout.ExtentBytes);
        Put32(sector, 16, ChangeLogLayout.AreaBytes);
        Put32(sector, 20, ChangeLogLayout.Slots);
        Put64(sector, 24, Generation);
        Put64(sector, 32, DiskBytes);
        Put32(sector, 40, IsOpen ? 1u : 0);
        Put32(sector, 44, Stamp is null ? 0 : 1u);
        Boot.TryWriteBytes(sector.AsSpan(48));
        if (Stamp is { } stamp)
        {
            Put64(sector, 64, stamp.Inode);
            Put64(sector, 72, stamp.Size);
            Put64(sector, 80, (ulong)stamp.Modified);
            Put64(sector, 88, (ulong)stamp.Changed);
        }

        Put64(sector, 96, OpenBytes);
        Put32(sector, SumAt, SumOf(sector));
        return sector;
    }

    /// <summary>Reads the sector; says what is wrong with it.</summary>
    internal static bool TryDecode(ReadOnlySpan<byte> sector, out ChangeLogRecord record, out string problem)
    {
        record = default;
        if (sector.Length < ChangeLogLayout.RecordBytes || !sector.StartsWith(ChangeLogLayout.Magic))
        {
            problem = "it does not begin as a change log does";
            return false;
        }

        uint version = Get32(sector, 8);
        ulong bytes = Get64(sector, 32);
        problem = version != ChangeLogLayout.Version ? $"its version is {version}, and this release knows {ChangeLogLayout.Version}"
            : SumOf(sector) != Get32(sector, SumAt) ? "its header does not have the checksum that it names"
            : Get32(sector, 12) != ChangeLogLayout.ExtentBytes || Get32(sector, 16) != ChangeLogLayout.AreaBytes
                || Get32(sector, 20) != ChangeLogLayout.Slots ? "its extents, areas or slots are of another size"
            : bytes is 0 or > ChangeLogLayout.MostDiskBytes ? $"it is of a disk of {bytes} bytes"
            : "";
        if (problem.Length > 0)
        {
            return false;
        }

        FileStamp? stamp = Get32(sector, 44) == 0 ? null
            : new FileStamp(Get64(sector, 64), Get64(sector, 72), (long)Get64(sector, 80), (long)Get64(sector, 88));
        record = new ChangeLogRecord(
            Get64(sector, 24), bytes, Get32(sector, 40) != 0, new Guid(sector.Slice(48, 16)), Get64(sector, 96), stamp);
        return true;
    }

    // CRC-32C: a confined worker, which reads the record, too, finds no library for more.
    private static uint SumOf(ReadOnlySpan<byte> sector)
    {
        uint sum = ~0u;
        for (int at = 0; at < SumAt; at += sizeof(ulong))
        {
            sum = BitOperations.Crc32C(sum, Get64(sector, at));
        }

        return ~sum;
    }

    private static uint Get32(ReadOnlySpan<byte> from, int at) => BinaryPrimitives.ReadUInt32LittleEndian(from[at..]);

    private static ulong Get64(ReadOnlySpan<byte> from, int at) => BinaryPrimitives.ReadUInt64LittleEndian(from[at..]);

    private static void Put32(Span<byte> to, int at, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(to[at..], value);

    private static void Put64(Span<byte> to, int at, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(to[at..], value);
}
