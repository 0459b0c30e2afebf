using Vmm.Interop;
using Vmm.Storage.Changes;

namespace Vmm.Storage.Tests;

/// <summary>The file of a change log, as vmmd reads and keeps it.</summary>
public sealed class ChangeLogFileTests
{
    private const ulong Extent = ChangeSet.ExtentBytes, Disk = (5ul << 30) + 512;

    private static readonly Guid s_next = new("99999999-2222-3333-4444-555555555555");

    [Fact]
    public void A_cut_names_what_was_written_and_what_was_not_acknowledged_is_in_the_next_one()
    {
        using LogFile file = new(Disk);
        using ChangeLog log = file.OpenLog();
        log.TryMark(0, 512);
        log.TryMark((3 * Extent) - 512, 1024);
        log.TryMark(Disk - 512, 512);
        Assert.Empty(file.Pending);
        log.Cut();
        ulong last = Disk / Extent;
        Assert.Equal([0, 2, 3, last], file.Pending);
        Assert.Equal(512u, file.File.ReadPending().Ranges.Last().Length); // the disk ends there
        log.TryMark(9 * Extent, 1);
        Assert.Equal([0, 2, 3, last], file.Pending);
        log.Cut();
        Assert.Equal([0, 2, 3, 9, last], file.Pending);
        file.File.Forget();
        Assert.Empty(file.Pending);
        log.Cut();
        Assert.Empty(file.Pending);
        log.TryMark(4ul << 30, 3 * (uint)Extent);
        log.Cut();
        ulong far = (4ul << 30) / Extent;
        Assert.Equal([far, far + 1, far + 2], file.Pending);
    }

    [Fact]
    public void A_worker_that_dies_forgets_nothing_and_the_next_one_goes_on()
    {
        using LogFile file = new(Disk);
        ChangeLog first = file.OpenLog(); // never closed: it died
        first.TryMark(5 * Extent, 512);
        file.File.End(LogFile.Stamp);
        Assert.Equal(ChangeUnknown.None, file.Reopen().Begin(LogFile.Boot, 2000, LogFile.Stamp, Disk));
        using ChangeLog log = file.OpenLog();
        log.Cut();
        Assert.Equal([5ul], file.Pending);
        first.Dispose();
    }

    [Theory]
    [InlineData(true, false, ChangeUnknown.None)] // the power went, and the file is older than the boot
    [InlineData(true, true, ChangeUnknown.ChangedOffline)] // and somebody wrote it since
    [InlineData(false, false, ChangeUnknown.NotClosed)] // nobody was there
    public void A_log_that_was_not_closed_knows_only_what_it_can(bool rebooted, bool written, ChangeUnknown expected)
    {
        using LogFile file = new(Disk);
        FileStamp now = LogFile.Stamp with { Modified = written ? 5000 : 1000 };
        Assert.Equal(expected, file.Reopen().Begin(rebooted ? s_next : LogFile.Boot, 3000, now, Disk));
    }

    [Fact]
    public void A_disk_that_was_changed_while_the_VM_was_off_is_unknown_until_that_is_cut_and_acknowledged()
    {
        using LogFile file = new(Disk);
        file.File.End(LogFile.Stamp);
        Assert.Equal(ChangeUnknown.ChangedOffline, file.Reopen().Begin(s_next, 3000, LogFile.Stamp with { Changed = 1001 }, Disk));
        using ChangeLog log = file.OpenLog();
        Assert.False(file.File.ReadPending().IsAll); // it was not cut yet
        log.Cut();
        ChangeSet set = file.File.ReadPending();
        Assert.Equal((true, ChangeUnknown.ChangedOffline), (set.IsAll, set.Reason));
        Assert.Equal([new ChangeRange(0, Disk)], set.Ranges);
        log.Cut();
        Assert.True(file.File.ReadPending().IsAll);
        file.File.Forget();
        log.TryMark(Extent, 1);
        log.Cut();
        Assert.Equal([1ul], file.Pending);
    }

    [Fact]
    public void A_disk_that_does_not_tell_is_unknown_after_each_time_that_the_VM_is_off()
    {
        using LogFile file = new(Disk);
        file.File.End(disk: null);
        Assert.Equal(ChangeUnknown.ChangedOffline, file.File.Begin(LogFile.Boot, 2000, disk: null, Disk));
    }

    [Fact]
    public void What_a_disk_grew_by_while_the_VM_was_off_counts_as_written()
    {
        using LogFile file = new(Disk);
        file.File.End(LogFile.Stamp);
        ulong larger = Disk + (3ul << 30);
        Assert.Equal(ChangeUnknown.None, file.File.Begin(LogFile.Boot, 2000, LogFile.Stamp, larger));
        using ChangeLog log = file.OpenLog();
        log.Cut();
        int grown = (int)((larger / Extent) - (Disk / Extent)) + 1;
        Assert.Equal(Enumerable.Range((int)(Disk / Extent), grown).Select(extent => (ulong)extent), file.Pending);
        Assert.Equal(ChangeUnknown.None, Begin(file, larger));
        Assert.Equal(ChangeUnknown.OtherDisk, Begin(file, Disk)); // it shrank
    }

    [Fact]
    public void A_disk_that_grows_under_a_worker_has_room_when_vmmd_made_it_and_is_unknown_otherwise()
    {
        using LogFile file = new(Disk);
        using ChangeLog log = file.OpenLog();
        ulong larger = Disk + (4ul << 30), extents = (larger + Extent - 1) / Extent;
        file.File.Grow(larger);
        log.Grow(larger);
        log.Cut();
        Assert.Equal(Disk / Extent, file.Pending[0]);
        Assert.Equal(extents - 1, file.Pending[^1]);
        Assert.Equal(extents - (Disk / Extent), (ulong)file.Pending.Count);
        file.File.Forget();
        log.Grow(larger + (9ul << 30)); // nobody made room
        Assert.True(log.TryMark(larger + (8ul << 30), 512));
        log.Cut();
        Assert.Equal(ChangeUnknown.Grown, file.File.ReadPending().Reason);
    }

    [Theory]
    [InlineData(0, ChangeUnknown.Damaged)] // magic
    [InlineData(8, ChangeUnknown.Damaged)] // version
    [InlineData(30, ChangeUnknown.Damaged)] // generation
    [InlineData(36, ChangeUnknown.Damaged)] // disk
    [InlineData(482, ChangeUnknown.Damaged)] // hash
    public void A_damaged_header_is_told_and_is_no_log(int at, ChangeUnknown expected)
    {
        using LogFile file = new(Disk);
        byte[] one = [0xa5];
        BlockFile.WriteAt(file.File.Descriptor, one, (ulong)at);
        Assert.Null(ChangeLogFile.TryOpen(file.FilePath, out string problem, out ChangeUnknown reason));
        Assert.Equal(expected, reason);
        Assert.Contains(file.FilePath, problem, StringComparison.Ordinal);
        Assert.Throws<BlockException>(file.OpenLog);
    }

    [Fact]
    public void A_log_that_is_missing_short_or_old_is_told()
    {
        using LogFile file = new(Disk);
        Assert.Null(ChangeLogFile.TryOpen(file.FilePath + "x", out _, out ChangeUnknown missing));
        Assert.Equal(ChangeUnknown.New, missing);
        Assert.Null(ChangeLogFile.TryOpen(file.FilePath, out string old, out ChangeUnknown reason, leastGeneration: 2));
        Assert.Equal(ChangeUnknown.OldGeneration, reason);
        Assert.Contains("generation 1", old, StringComparison.Ordinal);
        Assert.Equal(0, BlockFile.Resize(file.File.Descriptor, 20000));
        Assert.Null(ChangeLogFile.TryOpen(file.FilePath, out string problem, out reason));
        Assert.Equal(ChangeUnknown.Damaged, reason);
        Assert.Contains("20000 bytes", problem, StringComparison.Ordinal);
    }

    /// <summary>A worker may write anything into the file, and cut it, while vmmd has it open.</summary>
    [Fact]
    public void What_a_lying_worker_writes_harms_nobody_else()
    {
        Random random = new(5);
        for (int round = 0; round < 60; round++)
        {
            using LogFile file = new(Disk);
            for (int i = 0; i < 40; i++)
            {
                byte[] lie = new byte[random.Next(1, 3000)];
                random.NextBytes(lie);
                BlockFile.WriteAt(file.File.Descriptor, lie, (ulong)random.Next(100_000));
            }

            if (round % 3 == 0)
            {
                Assert.Equal(0, BlockFile.Resize(file.File.Descriptor, (ulong)random.Next(40_000)));
            }

            ChangeSet set = file.File.ReadPending();
            Assert.Equal(Disk, set.DiskBytes);
            _ = LogFile.Extents(set); // whatever they are, they are ranges of the disk
        }
    }

    [Fact]
    public void A_disk_that_is_too_large_has_no_log() =>
        Assert.Throws<BlockException>(() => ChangeLogFile.Create("/nonexistent/log", 1ul << 47, 1));

    private static ChangeUnknown Begin(LogFile file, ulong bytes)
    {
        file.File.End(LogFile.Stamp);
        return file.File.Begin(LogFile.Boot, 2000, LogFile.Stamp, bytes);
    }
}
