using System.Diagnostics;
using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage;

/// <summary>
/// Decides which small transfers the I/O thread does itself, without the ring. A transfer from or to the page cache, or a file system in
/// memory, is a copy, which costs less than the way through the ring. Worse, ext4 takes no buffered write from io_uring without handing it
/// to a kernel worker, and some file systems take nothing. A read of what is not cached stays with the ring. Where the kernel waits after
/// all (dirty page limits, a file system that has to ask another machine) the ring takes over for a while: after two slow ones in a row,
/// since one may only have lost its processor.
/// </summary>
internal sealed class AtOncePolicy(RawFileBackend disk, IoLoop loop)
{
    /// <summary>Longer transfers always take the ring, in bytes.</summary>
    internal const int Longest = 64 * 1024;

    private const int SlowMicroseconds = 100, QuickMicroseconds = 20;

    // Transfers of one round behind a quick one that nobody times: the clock costs a tenth of a copy of 4 KiB.
    private const int Untimed = 3;

    private readonly Mode _reads = ReadMode(disk), _writes = disk.Direct is { } direct ? DirectMode(direct) : Mode.Always;
    private long _ringUntil;
    private long _ended; // when the last transfer did
    private uint _round; // of the loop, in which it did
    private int _slow, _untimed;

    private enum Mode : byte
    {
        Never,
        IfCached,
        Always,
    }

    /// <summary>
    /// Transfers now, when that is the better way. False: the ring shall do it, nothing happened. <paramref name="result"/> is bytes or
    /// -errno.
    /// </summary>
    internal bool TryTransfer(bool read, FileDescriptorHandle file, nint vectors, int count, ulong offset, out int result)
    {
        result = 0;
        Mode mode = read ? _reads : _writes;
        if (mode == Mode.Never)
        {
            return false;
        }

        if (mode == Mode.IfCached)
        {
            result = BlockFile.ReadAt(file, vectors, count, offset, nowait: true);
            return result > 0;
        }

        // Within a round nothing worth a look at the clock lies between two transfers, or between its beginning and the first.
        bool isFirst = _round != loop.Round || _ended == 0;
        long begin = isFirst ? loop.RoundTime : _ended;
        if (begin < _ringUntil)
        {
            return false;
        }

        result = read ? BlockFile.ReadAt(file, vectors, count, offset, nowait: false) : BlockFile.WriteAt(file, vectors, count, offset);
        if (isFirst || _untimed == 0)
        {
            Observe(begin);
        }
        else
        {
            _untimed--; // a slow one among them is seen at the next look
        }

        return true;
    }

    private static Mode ReadMode(RawFileBackend disk)
    {
        if (disk.Direct is { } direct)
        {
            return DirectMode(direct);
        }

        return BlockFile.TakesNowait(disk.Buffered) ? Mode.IfCached : Mode.Always;
    }

    private static Mode DirectMode(FileDescriptorHandle direct) => BlockFile.TakesNowait(direct) ? Mode.Never : Mode.Always;

    private void Observe(long begin)
    {
        long end = Stopwatch.GetTimestamp();
        _ended = end;
        _round = loop.Round;
        loop.Looked(end);
        _untimed = end - begin < Stopwatch.Frequency * QuickMicroseconds / 1_000_000 ? Untimed : 0;
        _slow = end - begin > Stopwatch.Frequency * SlowMicroseconds / 1_000_000 ? _slow + 1 : 0;
        if (_slow > 1)
        {
            _ringUntil = end + (Stopwatch.Frequency / 10);
            _slow = 0;
        }
    }
}
