using System.Runtime.InteropServices;
using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.Changes;

/// <summary>
/// The change log of a disk in the process that writes the disk: marks what is written, before it is. The file is mapped, so that a mark
/// outlives this process without a system call; what a power cut would lose is covered by the activity log. Shared by all queues of the
/// disk; owns the file.
/// </summary>
public sealed class ChangeLog : IDisposable
{
    private readonly Lock _lock = new(); // never held across I/O
    private readonly FileDescriptorHandle _file;
    private readonly SharedFileMapping _mapping;
    private readonly ActivityLog _hot;
    private readonly List<EventFd> _waiting = []; // of nodes that wait for the end of a sync
    private long _covered;
    private bool _syncing;
    private volatile bool _failed;

    private ChangeLog(FileDescriptorHandle file, SharedFileMapping mapping, ActivityLog hot) =>
        (_file, _mapping, _hot) = (file, mapping, hot);

    /// <summary>The file, for a sync.</summary>
    internal FileDescriptorHandle File => _file;

    /// <summary>The log could not be written: everything counts as written until it is begun anew.</summary>
    public bool HasFailed => _failed;

    /// <summary>Opens the log that vmmd passed. Blocks.</summary>
    /// <param name="file">Its file, open for reading and writing; this object's, also when this throws.</param>
    /// <param name="diskBytes">Bytes of the disk.</param>
    /// <exception cref="BlockException">It is no log, one of another disk, or cannot be mapped or written.</exception>
    public static ChangeLog Open(FileDescriptorHandle file, ulong diskBytes)
    {
        SharedFileMapping? mapping = null;
        ActivityLog? hot = null;
        try
        {
            byte[] sector = new byte[ChangeLogLayout.RecordBytes];
            bool isWhole = BlockFile.ReadAt(file, sector, 0) == sector.Length;
            if (!ChangeLogRecord.TryDecode(isWhole ? sector : [], out ChangeLogRecord record, out string problem))
            {
                throw Refused(problem);
            }

            if (record.DiskBytes < diskBytes || BlockFile.Inspect(file).Size < ChangeLogLayout.FileBytes(record.DiskBytes))
            {
                throw Refused($"it is of a disk of {record.DiskBytes} bytes, and the disk has {diskBytes}");
            }

            // What an earlier worker left in memory, so that what the slots name is hot.
            KernelException.ThrowIfError(BlockFile.DataSync(file), "fdatasync of a change log");
            mapping = new SharedFileMapping(file, ChangeLogLayout.FileBytes(ChangeLogLayout.MostDiskBytes), writable: true, grows: true);
            hot = new ActivityLog((int)(ChangeLogLayout.MostDiskBytes / ChangeLogLayout.AreaBytes));
            ChangeLog log = new(file, mapping, hot) { _covered = (long)record.DiskBytes };
            return hot.TryLoad(log.Slots, AreasOf(record.DiskBytes)) ? log : throw Refused("its activity log is damaged");
        }
        catch (Exception e)
        {
            hot?.Dispose();
            mapping?.Dispose();
            file.Dispose();
            throw e is KernelException ? new BlockException(BlockErrorKind.Io, $"the change log cannot be used: {e.Message}", e) : e;
        }
    }

    /// <summary>Makes the node through which a loop reaches a disk by way of the log. On the loop's thread.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="loop">The loop.</param>
    /// <param name="depth">Most requests in flight.</param>
    /// <exception cref="BlockException">The host has no resources for it.</exception>
    public IBlockNode CreateNode(IDiskBackend disk, IoLoop loop, int depth) => new ChangeLogNode(this, loop, disk.CreateNode(loop, depth));

    /// <summary>
    /// Marks a range as written, before it is. Any thread; a few nanoseconds when that is nothing new.
    /// </summary>
    /// <returns>True: the write may go on. False: it waits for a sync.</returns>
    internal bool TryMark(ulong offset, ulong length)
    {
        if (length == 0)
        {
            return true;
        }

        ulong last = offset + length - 1;
        if (last >= (ulong)Volatile.Read(ref _covered))
        {
            NoteUncovered();
            return true;
        }

        Mark(offset / ChangeLogLayout.ExtentBytes, last / ChangeLogLayout.ExtentBytes);
        int area = (int)(offset / ChangeLogLayout.AreaBytes), end = (int)(last / ChangeLogLayout.AreaBytes);
        while (_hot.IsHot(area))
        {
            if (area++ == end)
            {
                return true;
            }
        }

        return _failed;
    }

    /// <summary>The disk has grown: what is new counts as written. Any thread.</summary>
    public void Grow(ulong diskBytes)
    {
        lock (_lock)
        {
            ulong covered = (ulong)_covered, room = Word64(ChangeLogLayout.RoomAt);
            if (diskBytes <= covered)
            {
                return;
            }

            if (diskBytes > Math.Min(room, ChangeLogLayout.MostDiskBytes))
            {
                NoteUncovered();
                return;
            }

            Mark(covered / ChangeLogLayout.ExtentBytes, (diskBytes - 1) / ChangeLogLayout.ExtentBytes);
            Word64(ChangeLogLayout.CoveredAt) = diskBytes;
            Volatile.Write(ref _covered, (long)diskBytes);
        }
    }

    /// <summary>
    /// What was written until now is pending from here on, with what was pending and is not acknowledged. Nothing is in flight, and the
    /// disk is flushed. Blocks for a sync when something is pending still.
    /// </summary>
    public void Cut()
    {
        lock (_lock)
        {
            ref uint currentReason = ref Word(ChangeLogLayout.CurrentUnknownAt);
            ref uint pendingReason = ref Word(ChangeLogLayout.PendingUnknownAt);
            pendingReason = pendingReason != 0 ? pendingReason : currentReason;
            if (Word(ChangeLogLayout.PendingInUseAt) == 0)
            {
                Volatile.Write(ref Word(ChangeLogLayout.CurrentAt), 1 - CurrentBitmap); // vmmd has cleared the other one
                Volatile.Write(ref Word(ChangeLogLayout.PendingInUseAt), 1);
            }
            else if (!TryMerge())
            {
                _failed = true;
                currentReason = (uint)ChangeUnknown.LogFailed;
                return; // what was written comes again in the next cut
            }

            currentReason = _failed ? (uint)ChangeUnknown.LogFailed : 0;
            Word64(ChangeLogLayout.CutsAt)++;
        }
    }

    /// <summary>What <see cref="TryBeginSync"/> says.</summary>
    internal enum SyncStep
    {
        /// <summary>Try again what waits.</summary>
        GoOn,

        /// <summary>The node syncs the file, and says so by <see cref="EndSync"/>.</summary>
        Sync,

        /// <summary>Another node does; the bell rings at its end.</summary>
        Wait,
    }

    /// <summary>
    /// Begins to make areas hot. One sync at a time: of two at once only one would hear of a failure (fsync(2)).
    /// </summary>
    /// <param name="first">The requests of a node that wait, linked.</param>
    /// <param name="bell">Of the node.</param>
    internal SyncStep TryBeginSync(BlockRequest? first, EventFd bell)
    {
        lock (_lock)
        {
            if (_failed)
            {
                return SyncStep.GoOn;
            }

            if (_syncing)
            {
                if (!_waiting.Contains(bell))
                {
                    _waiting.Add(bell);
                }

                return SyncStep.Wait;
            }

            int unmet = 0;
            for (BlockRequest? request = first; request is not null; request = request.NextWaiting)
            {
                unmet += IsLong(request.Offset, request.Length) ? 0 : Assign(request);
            }

            _hot.Cool(unmet);
            _syncing = true;
            return SyncStep.Sync;
        }
    }

    /// <summary>The sync is over.</summary>
    /// <param name="result">0, or -errno.</param>
    internal void EndSync(int result)
    {
        lock (_lock)
        {
            _syncing = false;
            if (result < 0)
            {
                // The guest's disk is not to blame: its requests go on, and the log says that it does not know.
                _failed = true;
                Word(ChangeLogLayout.CurrentUnknownAt) = (uint)ChangeUnknown.LogFailed;
            }
            else
            {
                _hot.Synced();
            }

            foreach (EventFd bell in _waiting)
            {
                bell.Signal();
            }

            _waiting.Clear();
        }
    }

    /// <summary>
    /// A range that has too many areas to be made hot: it is marked, and goes on when a sync that begins behind that is over.
    /// </summary>
    internal static bool IsLong(ulong offset, ulong length) =>
        (offset + length - 1) / ChangeLogLayout.AreaBytes - (offset / ChangeLogLayout.AreaBytes) >= 32;

    /// <summary>A node is gone.</summary>
    internal void Forget(EventFd bell)
    {
        lock (_lock)
        {
            _waiting.Remove(bell);
        }
    }

    /// <summary>Makes stable what is marked. Blocks. No node is left, and the file is closed.</summary>
    public void Dispose()
    {
        if (_file.IsClosed)
        {
            return;
        }

        _ = BlockFile.DataSync(_file); // vmmd syncs it again, and hears of a failure
        _hot.Dispose();
        _mapping.Dispose();
        _file.Dispose();
    }

    private uint CurrentBitmap => Word(ChangeLogLayout.CurrentAt) & 1;

    private Span<uint> Slots => MemoryMarshal.Cast<byte, uint>(
        _mapping.Bytes.Slice(ChangeLogLayout.SlotsAt, ChangeLogLayout.Slots * sizeof(uint)));

    private static ulong AreasOf(ulong diskBytes) => (diskBytes + ChangeLogLayout.AreaBytes - 1) / ChangeLogLayout.AreaBytes;

    private static BlockException Refused(string why) => new(BlockErrorKind.Damaged, $"the change log cannot be used: {why}");

    private ref uint Word(int at) => ref MemoryMarshal.Cast<byte, uint>(_mapping.Bytes.Slice(at, sizeof(uint)))[0];

    private ref ulong Word64(int at) => ref MemoryMarshal.Cast<byte, ulong>(_mapping.Bytes.Slice(at, sizeof(ulong)))[0];

    private Span<ulong> Bits(int page, uint bitmap) => MemoryMarshal.Cast<byte, ulong>(
        _mapping.Bytes.Slice((int)ChangeLogLayout.PageAt(page, bitmap), ChangeLogLayout.PageBytes));

    // Also what is marked already is looked at before the area is: see ActivityLog.
    private void Mark(ulong first, ulong last)
    {
        const int pageBits = ChangeLogLayout.PageBytes * 8;
        uint bitmap = CurrentBitmap;
        while (first <= last)
        {
            Span<ulong> words = Bits((int)(first / pageBits), bitmap);
            int at = (int)(first % pageBits), bit = at % 64;
            int count = (int)Math.Min((ulong)(64 - bit), last - first + 1);
            ulong mask = (count == 64 ? ulong.MaxValue : (1ul << count) - 1) << bit;
            ref ulong word = ref words[at / 64];
            if ((Volatile.Read(ref word) & mask) != mask)
            {
                Interlocked.Or(ref word, mask);
            }

            first += (ulong)count;
        }
    }

    // How many areas of the request got no slot.
    private int Assign(BlockRequest request)
    {
        uint area = (uint)(request.Offset / ChangeLogLayout.AreaBytes);
        uint end = (uint)((request.Offset + request.Length - 1) / ChangeLogLayout.AreaBytes);
        Span<uint> slots = Slots;
        int unmet = 0;
        for (; area <= end; area++)
        {
            unmet += _hot.TryAssign(area, slots) ? 0 : 1;
        }

        return unmet;
    }

    // Current marks go to the pending ones, and are stable there before they go away here.
    private bool TryMerge()
    {
        uint current = CurrentBitmap;
        int pages = ChangeLogLayout.PagesFor((ulong)_covered);
        for (int page = 0; page < pages; page++)
        {
            Span<ulong> from = Bits(page, current), to = Bits(page, 1 - current);
            for (int i = 0; i < from.Length; i++)
            {
                if ((from[i] & ~to[i]) != 0)
                {
                    to[i] |= from[i];
                }
            }
        }

        if (BlockFile.DataSync(_file) < 0)
        {
            return false;
        }

        for (int page = 0; page < pages; page++)
        {
            Span<ulong> from = Bits(page, current);
            if (from.ContainsAnyExcept(0ul))
            {
                from.Clear();
            }
        }

        return true;
    }

    // A write behind what the log covers: the disk has grown, and nobody gave the log room.
    private void NoteUncovered()
    {
        ref uint reason = ref Word(ChangeLogLayout.CurrentUnknownAt);
        if (Volatile.Read(ref reason) == 0)
        {
            Interlocked.CompareExchange(ref reason, (uint)ChangeUnknown.Grown, 0);
        }
    }
}
