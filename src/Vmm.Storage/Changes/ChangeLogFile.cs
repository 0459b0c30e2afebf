using Vmm.Interop;

namespace Vmm.Storage.Changes;

/// <summary>
/// The file of a disk's change log as vmmd has it (docs/change-log-format.md): which extents of 64 KiB were written since the last cut, and
/// which before it and are not acknowledged. A worker maps the same file and sets bits; nothing it writes there is trusted further than
/// that a bit is a bit. So the file is read and written here, and never mapped. Blocks. For one thread at a time.
/// </summary>
public sealed class ChangeLogFile : IDisposable
{
    private readonly ChangeLogPages _pages;
    private ChangeLogRecord _record;

    private ChangeLogFile(string path, FileDescriptorHandle file, ChangeLogRecord record) =>
        (Path, Descriptor, _record, _pages) = (path, file, record, new ChangeLogPages(path, file));

    /// <summary>Where it is.</summary>
    public string Path { get; }

    /// <summary>The open file, for the worker to map. Stays this object's.</summary>
    public FileDescriptorHandle Descriptor { get; }

    /// <summary>Counts the beginnings of the log: one that was begun anew since has a larger number.</summary>
    public ulong Generation => _record.Generation;

    /// <summary>Bytes of the disk.</summary>
    public ulong DiskBytes => _record.DiskBytes;

    /// <summary>
    /// Counts the cuts: one that was asked for and did not count has not been made, since the worker had no log.
    /// </summary>
    /// <exception cref="BlockException">The file cannot be read.</exception>
    public ulong Cuts => Guarded(() => _pages.ReadWord64(ChangeLogLayout.CutsAt));

    /// <summary>A worker has it, or had it when everything ended.</summary>
    public bool IsOpen => _record.IsOpen;

    /// <summary>Makes the file, on stable storage; one that is there is replaced. Everything counts as written.</summary>
    /// <param name="path">Where.</param>
    /// <param name="diskBytes">Bytes of the disk.</param>
    /// <param name="generation">One more than that of the log before; 1 for the first.</param>
    /// <param name="reason">Why everything counts as written.</param>
    /// <exception cref="BlockException">The disk is too large for a log, or the host failed.</exception>
    public static ChangeLogFile Create(string path, ulong diskBytes, ulong generation, ChangeUnknown reason = ChangeUnknown.New)
    {
        if (diskBytes is 0 or > ChangeLogLayout.MostDiskBytes)
        {
            throw new BlockException(BlockErrorKind.BadSize,
                $"a disk of {diskBytes} bytes has no change log: the most is {ChangeLogLayout.MostDiskBytes}") { Path = path };
        }

        string partial = path + ".partial";
        FileDescriptorHandle? file = null;
        try
        {
            System.IO.File.Create(partial).Dispose();
            System.IO.File.SetUnixFileMode(partial, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            file = BlockFile.Open(partial, writable: true, direct: false);
            ChangeLogFile log = new(
                path, file, new ChangeLogRecord(generation, diskBytes, IsOpen: false, Guid.Empty, diskBytes, Stamp: null));
            log._pages.MakeRoom(0, diskBytes);
            log._pages.WriteWord64(ChangeLogLayout.CoveredAt, diskBytes);
            log._pages.WriteWord(ChangeLogLayout.CurrentUnknownAt, (uint)reason);
            log.WriteRecord();
            log._pages.Sync();
            System.IO.File.Move(partial, path, overwrite: true);
            HostFolder.Flush(System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(path))!);
            return log;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or KernelException)
        {
            file?.Dispose();
            System.IO.File.Delete(partial);
            throw ChangeLogPages.Failed(path, "cannot be made", e);
        }
        catch
        {
            file?.Dispose();
            System.IO.File.Delete(partial);
            throw;
        }
    }

    /// <summary>Opens a log that is there.</summary>
    /// <param name="path">Where.</param>
    /// <param name="problem">Why there is none; empty when there is one. A new one begins with <paramref name="reason"/>.</param>
    /// <param name="reason">Why the caller knows nothing; <see cref="ChangeUnknown.None"/> when there is a log.</param>
    /// <param name="leastGeneration">The least that it has to have: an older one was put back from somewhere.</param>
    /// <returns>Null: make a new one with that reason.</returns>
    public static ChangeLogFile? TryOpen(string path, out string problem, out ChangeUnknown reason, ulong leastGeneration = 0)
    {
        FileDescriptorHandle? file = null;
        try
        {
            if (BlockFile.Kind(path) == PathKind.Missing)
            {
                (problem, reason) = ($"there is no change log {path}", ChangeUnknown.New);
                return null;
            }

            file = BlockFile.Open(path, writable: true, direct: false);
            byte[] sector = new byte[ChangeLogLayout.RecordBytes];
            reason = ChangeUnknown.Damaged;
            BlockFileInfo info = BlockFile.Inspect(file);
            if (info.Kind != BlockFileKind.RegularFile || BlockFile.ReadAt(file, sector, 0) < sector.Length)
            {
                problem = $"change log {path} is damaged: it is too short";
            }
            else if (!ChangeLogRecord.TryDecode(sector, out ChangeLogRecord record, out problem))
            {
                problem = $"change log {path} is damaged: {problem}";
            }
            else if (info.Size < ChangeLogLayout.FileBytes(record.DiskBytes))
            {
                problem = $"change log {path} is damaged: it has {info.Size} bytes, and a disk of {record.DiskBytes} bytes needs "
                    + $"{ChangeLogLayout.FileBytes(record.DiskBytes)}";
            }
            else if (record.Generation < leastGeneration)
            {
                reason = ChangeUnknown.OldGeneration;
                problem = $"change log {path} is of generation {record.Generation}, and {leastGeneration} is the last";
            }
            else
            {
                reason = ChangeUnknown.None;
                return new ChangeLogFile(path, file, record);
            }

            file.Dispose();
            return null;
        }
        catch (KernelException e)
        {
            file?.Dispose();
            (problem, reason) = ($"change log {path} cannot be read: {e.Message}", ChangeUnknown.Damaged);
            return null;
        }
    }

    /// <summary>
    /// A VM begins to use the disk: what is not sure is taken for written, and from here on a power cut is one that the log knows of. No
    /// worker has the file. On stable storage when this returns.
    /// </summary>
    /// <param name="boot">The host's boot.</param>
    /// <param name="bootTime">When that began, in nanoseconds since 1970.</param>
    /// <param name="disk">What the disk's top file is like; null when it does not tell, as a device.</param>
    /// <param name="diskBytes">Bytes of the disk.</param>
    /// <returns>Why everything counts as written; <see cref="ChangeUnknown.None"/> when that is known.</returns>
    /// <exception cref="BlockException">The file cannot be written: the disk has no log.</exception>
    public ChangeUnknown Begin(Guid boot, long bootTime, FileStamp? disk, ulong diskBytes) => Guarded(() =>
    {
        bool powerCut = _record.IsOpen && _record.Boot != boot;
        ChangeUnknown found;
        if (powerCut)
        {
            found = disk is not { } now || now.Modified > bootTime || now.Changed > bootTime ? ChangeUnknown.ChangedOffline
                : _pages.TakeHotForWritten(DiskBytes) ? ChangeUnknown.None : ChangeUnknown.Damaged;
        }
        else
        {
            found = _record.IsOpen ? ChangeUnknown.NotClosed
                : _record.Stamp is { } before && before == disk ? ChangeUnknown.None : ChangeUnknown.ChangedOffline;
        }

        if (diskBytes < DiskBytes || diskBytes > ChangeLogLayout.MostDiskBytes)
        {
            found = ChangeUnknown.OtherDisk; // the log stays as large as it is
        }
        else
        {
            GrowTo(diskBytes, from: powerCut ? _record.OpenBytes : _pages.ReadWord64(ChangeLogLayout.CoveredAt));
        }

        Note(found);
        _pages.Sync(); // the bits, before the activity log forgets
        _pages.ClearSlots();
        _record = _record with { IsOpen = true, Boot = boot, OpenBytes = DiskBytes, Stamp = null };
        WriteRecord();
        _pages.Sync();
        return Reasons().Current;
    });

    /// <summary>
    /// The VM is over, and its worker is gone: what the log has is right as long as the disk's file stays as it is. On stable storage when
    /// this returns.
    /// </summary>
    /// <param name="disk">What the disk's top file is like now; null when it does not tell: the next begin takes everything for
    /// written.</param>
    /// <exception cref="BlockException">The file cannot be written.</exception>
    public void End(FileStamp? disk) => Guarded(() =>
    {
        _pages.Sync();
        _record = _record with { IsOpen = false, Stamp = disk };
        WriteRecord();
        _pages.Sync();
        return 0;
    });

    /// <summary>Everything counts as written from now on, until that is cut and acknowledged. Not while a cut is made.</summary>
    /// <param name="reason">Why; the first reason stands.</param>
    /// <exception cref="BlockException">The file cannot be written.</exception>
    public void MarkUnknown(ChangeUnknown reason) => Guarded(() =>
    {
        Note(reason);
        _pages.Sync();
        return 0;
    });

    /// <summary>
    /// The disk is about to grow: the log gets room for that. While a worker has the log it marks what is new itself; without one that is
    /// done by the next <see cref="Begin"/>.
    /// </summary>
    /// <param name="diskBytes">Its size then, in bytes; a smaller one changes nothing.</param>
    /// <exception cref="BlockException">The disk gets too large for a log, or there is no space: it counts as unknown when it grows all the
    /// same.</exception>
    public void Grow(ulong diskBytes)
    {
        if (diskBytes > ChangeLogLayout.MostDiskBytes)
        {
            throw new BlockException(BlockErrorKind.BadSize,
                $"a disk of {diskBytes} bytes has no change log: the most is {ChangeLogLayout.MostDiskBytes}") { Path = Path };
        }

        if (diskBytes > DiskBytes && IsOpen)
        {
            Guarded(() =>
            {
                GrowTo(diskBytes, from: diskBytes);
                WriteRecord();
                _pages.Sync();
                return 0;
            });
        }
    }

    /// <summary>
    /// What was written before the last cut, since what was acknowledged. No cut may be made while this is used. Whatever the file has, the
    /// ranges are inside the disk.
    /// </summary>
    /// <returns>Ranges, or everything with the reason. A file that cannot be read is everything.</returns>
    public ChangeSet ReadPending()
    {
        try
        {
            if (_pages.ReadWord(ChangeLogLayout.PendingInUseAt) == 0)
            {
                return new ChangeSet(DiskBytes, ChangeUnknown.None, []);
            }

            ChangeUnknown reason = BlockFile.Inspect(Descriptor).Size < ChangeLogLayout.FileBytes(DiskBytes) ? ChangeUnknown.Damaged
                : _pages.ReadWord64(ChangeLogLayout.CoveredAt) > DiskBytes ? ChangeUnknown.Grown // and Grow was not told
                : Reasons().Pending;
            return reason == ChangeUnknown.None
                ? new ChangeSet(DiskBytes, reason, _pages.Ranges(1 - CurrentBitmap, DiskBytes))
                : Everything(reason);
        }
        catch (Exception e) when (e is KernelException or BlockException)
        {
            return Everything(ChangeUnknown.Damaged);
        }
    }

    /// <summary>Everything, for a caller that knows why the log cannot tell.</summary>
    /// <param name="reason">Why.</param>
    public ChangeSet Everything(ChangeUnknown reason) => new(DiskBytes, reason, [new ChangeRange(0, DiskBytes)]);

    /// <summary>
    /// What is pending is safe elsewhere: it is forgotten. On stable storage when this returns. No cut may be made meanwhile.
    /// </summary>
    /// <exception cref="BlockException">The file cannot be written: what is pending comes again.</exception>
    public void Forget() => Guarded(() =>
    {
        if (_pages.ReadWord(ChangeLogLayout.PendingInUseAt) != 0)
        {
            _pages.Clear(1 - CurrentBitmap, DiskBytes);
            _pages.WriteWord(ChangeLogLayout.PendingUnknownAt, 0);
            _pages.Sync();
            _pages.WriteWord(ChangeLogLayout.PendingInUseAt, 0);
        }

        return 0;
    });

    /// <summary>
    /// A cut of a disk that nobody uses: what was written since the last cut is pending. On stable storage when this returns.
    /// </summary>
    /// <exception cref="InvalidOperationException">A worker has the log: it makes the cuts.</exception>
    /// <exception cref="BlockException">The file cannot be written: what was written is in the next cut.</exception>
    public void Cut()
    {
        if (IsOpen)
        {
            throw new InvalidOperationException($"the change log {Path} is a worker's, which makes its cuts");
        }

        Guarded(() =>
        {
            _pages.Merge(CurrentBitmap, DiskBytes);
            (ChangeUnknown current, ChangeUnknown pending) = Reasons();
            _pages.WriteWord(ChangeLogLayout.PendingUnknownAt, (uint)(pending == ChangeUnknown.None ? current : pending));
            _pages.WriteWord(ChangeLogLayout.PendingInUseAt, 1);
            _pages.Sync();
            _pages.Clear(CurrentBitmap, DiskBytes);
            _pages.WriteWord(ChangeLogLayout.CurrentUnknownAt, 0);
            _pages.WriteWord64(ChangeLogLayout.CutsAt, _pages.ReadWord64(ChangeLogLayout.CutsAt) + 1);
            _pages.Sync();
            return 0;
        });
    }

    /// <inheritdoc/>
    public void Dispose() => Descriptor.Dispose();

    private uint CurrentBitmap => _pages.ReadWord(ChangeLogLayout.CurrentAt) & 1;

    private (ChangeUnknown Current, ChangeUnknown Pending) Reasons() => (
        ChangeLogLayout.Reason(_pages.ReadWord(ChangeLogLayout.CurrentUnknownAt)),
        ChangeLogLayout.Reason(_pages.ReadWord(ChangeLogLayout.PendingUnknownAt)));

    private void Note(ChangeUnknown reason)
    {
        if (reason != ChangeUnknown.None && Reasons().Current == ChangeUnknown.None)
        {
            _pages.WriteWord(ChangeLogLayout.CurrentUnknownAt, (uint)reason);
        }
    }

    // The file first, then what says that it is so large. What lies behind the byte `from` counts as written.
    private void GrowTo(ulong diskBytes, ulong from)
    {
        if (diskBytes > DiskBytes)
        {
            _pages.MakeRoom(DiskBytes, diskBytes);
        }

        if (from < diskBytes)
        {
            _pages.Mark(CurrentBitmap, from / ChangeLogLayout.ExtentBytes, ChangeLogLayout.ExtentsOf(diskBytes));
            _pages.WriteWord64(ChangeLogLayout.CoveredAt, diskBytes);
        }

        _record = _record with { DiskBytes = diskBytes };
    }

    private void WriteRecord() => BlockFile.WriteAt(Descriptor, _record.Encode(), 0);

    private T Guarded<T>(Func<T> act)
    {
        try
        {
            return act();
        }
        catch (KernelException e)
        {
            throw ChangeLogPages.Failed(Path, "cannot be written", e);
        }
    }
}
