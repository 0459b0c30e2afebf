using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.InteropServices;
using Vmm.Interop;

namespace Vmm.Storage.Changes;

/// <summary>Reads and writes the words and bitmaps of a change log's file, page by page: memory does not grow with the disk.</summary>
/// <param name="path">What errors call it.</param>
/// <param name="file">The file.</param>
internal sealed class ChangeLogPages(string path, FileDescriptorHandle file)
{
    private readonly byte[] _page = new byte[ChangeLogLayout.PageBytes], _other = new byte[ChangeLogLayout.PageBytes];

    internal static BlockException Failed(string path, string what, Exception e)
    {
        bool isFull = e is KernelException { Errno: Errno.ENOSPC };
        return new BlockException(BlockErrorKind.Io, $"change log {path} {what}: {e.Message}"
            + (isFull ? "; make room on its file system" : ""), e)
        {
            Path = path,
            Status = isFull ? DiskStatus.NoSpace : DiskStatus.IoError,
        };
    }

    internal uint ReadWord(int at)
    {
        Span<byte> word = stackalloc byte[sizeof(uint)];
        Read(word, (ulong)at);
        return BinaryPrimitives.ReadUInt32LittleEndian(word);
    }

    internal ulong ReadWord64(int at)
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        Read(word, (ulong)at);
        return BinaryPrimitives.ReadUInt64LittleEndian(word);
    }

    internal void WriteWord(int at, uint value)
    {
        Span<byte> word = stackalloc byte[sizeof(uint)];
        BinaryPrimitives.WriteUInt32LittleEndian(word, value);
        BlockFile.WriteAt(file, word, (ulong)at);
    }

    internal void WriteWord64(int at, ulong value)
    {
        Span<byte> word = stackalloc byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(word, value);
        BlockFile.WriteAt(file, word, (ulong)at);
    }

    /// <summary>What was written is on stable storage.</summary>
    internal void Sync() => KernelException.ThrowIfError(BlockFile.DataSync(file), $"fdatasync {path}");

    /// <summary>
    /// Gives the file its blocks: a worker that touches a page of a mapped file for which there is no space is killed. Zeros where the file
    /// system cannot do that otherwise.
    /// </summary>
    internal void MakeRoom(ulong from, ulong to)
    {
        ulong begin = from == 0 ? 0 : ChangeLogLayout.FileBytes(from), end = ChangeLogLayout.FileBytes(to);
        if (end > begin)
        {
            int answer = BlockFile.Allocate(file, FallocateModes.None, begin, end - begin);
            if (answer == -Errno.EOPNOTSUPP)
            {
                Array.Clear(_page);
                for (ulong at = begin; at < end; at += ChangeLogLayout.PageBytes)
                {
                    BlockFile.WriteAt(file, _page, at);
                }
            }
            else if (answer < 0)
            {
                throw new KernelException($"fallocate {path}, {end} bytes", -answer);
            }
        }

        WriteWord64(ChangeLogLayout.RoomAt, (ulong)ChangeLogLayout.PagesFor(to) * ChangeLogLayout.PageCovers);
    }

    /// <summary>Sets the bits of extents.</summary>
    internal void Mark(uint bitmap, ulong first, ulong end)
    {
        const ulong bits = ChangeLogLayout.PageBytes * 8;
        while (first < end)
        {
            int page = (int)(first / bits);
            ulong last = Math.Min(end, (ulong)(page + 1) * bits);
            ReadPage(page, bitmap, _page);
            for (; first < last; first++)
            {
                _page[(int)(first % bits / 8)] |= (byte)(1 << (int)(first % 8));
            }

            BlockFile.WriteAt(file, _page, ChangeLogLayout.PageAt(page, bitmap));
        }
    }

    /// <summary>After a power cut: what was hot may have been written. False when the activity log names what the disk has not.</summary>
    internal bool TakeHotForWritten(ulong diskBytes)
    {
        byte[] slots = new byte[ChangeLogLayout.Slots * sizeof(uint)];
        Read(slots, ChangeLogLayout.SlotsAt);
        uint bitmap = ReadWord(ChangeLogLayout.CurrentAt) & 1;
        const ulong extents = ChangeLogLayout.AreaBytes / ChangeLogLayout.ExtentBytes;
        foreach (uint slot in MemoryMarshal.Cast<byte, uint>(slots))
        {
            if (slot == 0)
            {
                continue;
            }

            ulong first = (slot - 1) * extents;
            if (first >= ChangeLogLayout.ExtentsOf(diskBytes))
            {
                return false;
            }

            Mark(bitmap, first, Math.Min(first + extents, ChangeLogLayout.ExtentsOf(diskBytes)));
        }

        return true;
    }

    /// <summary>Nothing is hot.</summary>
    internal void ClearSlots() => BlockFile.WriteAt(file, new byte[ChangeLogLayout.Slots * sizeof(uint)], ChangeLogLayout.SlotsAt);

    /// <summary>Clears a bitmap; pages without a bit are not written.</summary>
    internal void Clear(uint bitmap, ulong diskBytes)
    {
        Array.Clear(_other);
        for (int page = 0; page < ChangeLogLayout.PagesFor(diskBytes); page++)
        {
            ReadPage(page, bitmap, _page);
            if (_page.AsSpan().ContainsAnyExcept((byte)0))
            {
                BlockFile.WriteAt(file, _other, ChangeLogLayout.PageAt(page, bitmap));
            }
        }
    }

    /// <summary>Sets the bits of a bitmap in the other one, too.</summary>
    internal void Merge(uint bitmap, ulong diskBytes)
    {
        for (int page = 0; page < ChangeLogLayout.PagesFor(diskBytes); page++)
        {
            ReadPage(page, bitmap, _page);
            if (_page.AsSpan().ContainsAnyExcept((byte)0))
            {
                ReadPage(page, 1 - bitmap, _other);
                Span<ulong> from = MemoryMarshal.Cast<byte, ulong>(_page.AsSpan()), to = MemoryMarshal.Cast<byte, ulong>(_other.AsSpan());
                for (int i = 0; i < from.Length; i++)
                {
                    to[i] |= from[i];
                }

                BlockFile.WriteAt(file, _other, ChangeLogLayout.PageAt(page, 1 - bitmap));
            }
        }
    }

    /// <summary>The ranges of a bitmap, in order; neighbours are one.</summary>
    /// <exception cref="BlockException">The file cannot be read.</exception>
    internal IEnumerable<ChangeRange> Ranges(uint bitmap, ulong diskBytes)
    {
        const ulong bits = ChangeLogLayout.PageBytes * 8;
        byte[] page = new byte[ChangeLogLayout.PageBytes]; // of this enumeration: others may go on beside it
        ulong extents = ChangeLogLayout.ExtentsOf(diskBytes), begin = 0, end = 0; // the range that is open
        for (int i = 0; i < ChangeLogLayout.PagesFor(diskBytes); i++)
        {
            ReadForRanges(i, bitmap, page);
            for (int at = 0; (at = NextSet(page, at)) < (int)bits; )
            {
                int stop = NextClear(page, at);
                ulong first = ((ulong)i * bits) + (ulong)at, last = Math.Min(((ulong)i * bits) + (ulong)stop, extents);
                at = stop;
                if (first >= extents)
                {
                    break;
                }

                if (first != end && end > begin)
                {
                    yield return Range(begin, end, diskBytes);
                }

                (begin, end) = (first == end && end > begin ? begin : first, last);
            }
        }

        if (end > begin)
        {
            yield return Range(begin, end, diskBytes);
        }
    }

    private static ChangeRange Range(ulong begin, ulong end, ulong diskBytes)
    {
        ulong offset = begin * ChangeLogLayout.ExtentBytes;
        return new ChangeRange(offset, Math.Min(end * ChangeLogLayout.ExtentBytes, diskBytes) - offset);
    }

    private static int NextSet(byte[] page, int from) => Next(page, from, flip: 0);

    private static int NextClear(byte[] page, int from) => Next(page, from, flip: ulong.MaxValue);

    private static int Next(byte[] page, int from, ulong flip)
    {
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(page.AsSpan());
        for (int word = from / 64; word < words.Length; word++, from = word * 64)
        {
            ulong left = (words[word] ^ flip) & (ulong.MaxValue << (from % 64));
            if (left != 0)
            {
                return (word * 64) + BitOperations.TrailingZeroCount(left);
            }
        }

        return page.Length * 8;
    }

    private void ReadForRanges(int page, uint bitmap, byte[] into)
    {
        try
        {
            ReadPage(page, bitmap, into);
        }
        catch (KernelException e)
        {
            throw Failed(path, "cannot be read", e);
        }
    }

    private void ReadPage(int page, uint bitmap, byte[] into) => Read(into, ChangeLogLayout.PageAt(page, bitmap));

    private void Read(Span<byte> into, ulong at)
    {
        if (BlockFile.ReadAt(file, into, at) < into.Length)
        {
            throw new BlockException(BlockErrorKind.Damaged, $"change log {path} is damaged: it ends before byte {at}") { Path = path };
        }
    }
}
