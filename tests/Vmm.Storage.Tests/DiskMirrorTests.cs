using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.Tests;

/// <summary>A disk that is copied while it is used: nothing is lost, whatever fails and whenever it ends.</summary>
public sealed class DiskMirrorTests
{
    private const int Size = (3 << 20) + 512, Large = (40 << 20) + 512;

    private static readonly TimeSpan s_soon = TimeSpan.FromSeconds(30);

    /// <summary>
    /// Queues write at once, also over each other, while the copier goes over the disk: in the end both disks have the same bytes, and each
    /// sector is one that somebody wrote there.
    /// </summary>
    [Theory]
    [InlineData(1, 1)]
    [InlineData(2, 2)]
    [InlineData(4, 3)]
    [InlineData(4, 4)]
    public void Both_disks_are_the_same_after_random_writes_of_any_number_of_queues(int queues, int seed)
    {
        using UnsteadyDisk source = new(Large, seed) { Slowness = 900 }, target = new(Large, seed + 100) { Slowness = 900 };
        new Random(seed).NextBytes(source.Content);
        byte[] before = (byte[])source.Content.Clone();
        new Random(seed + 7).NextBytes(target.Content); // what was there before does not matter
        using DiskMirror mirror = new(source, target);
        mirror.Start(); // most of the time the copier has a chunk
        Writers writers = new(mirror, queues, seed, Large);
        writers.RunUntil(() => mirror.Report.State == MirrorState.Mirrored);
        Assert.Equal((ulong)Large, mirror.Report.CopiedBytes);
        writers.RunFor(200); // all of these go to both
        writers.Dispose();
        Assert.Null(mirror.Report.Problem);
        Assert.True(writers.Count > 200, $"only {writers.Count} writes");
        Assert.Equal(-1, FirstDifference(source.Content, target.Content));
        writers.CheckSectors(source.Content, before);
    }

    /// <summary>The same through files, where holes, alignment and bounce buffers take part.</summary>
    [Theory]
    [InlineData("direct")]
    [InlineData("buffered")]
    public void Files_are_the_same_after_random_writes_of_two_queues(string kind)
    {
        using TemporaryFile from = new(Size), to = new(Size);
        byte[] before = new byte[Size];
        new Random(9).NextBytes(before.AsSpan(Size / 3)); // a hole first
        File.WriteAllBytes(from.Path, before);
        DiskCacheMode cache = kind == "direct" ? DiskCacheMode.Direct : DiskCacheMode.Buffered;
        using (DiskMirror mirror = new(
            RawFileBackend.Open(from.Path, new() { Cache = cache }), RawFileBackend.Open(to.Path, new() { Cache = cache })))
        {
            mirror.Start(bytesPerSecond: 12 << 20);
            Writers writers = new(mirror, 2, 5, Size);
            writers.RunUntil(() => mirror.Report.State == MirrorState.Mirrored);
            writers.RunFor(100);
            writers.Dispose();
        }

        Assert.Equal(-1, FirstDifference(File.ReadAllBytes(from.Path), File.ReadAllBytes(to.Path)));
    }

    /// <summary>A guest that changes its memory under a write may have either on the disk, but the same on both.</summary>
    [Fact]
    public void Memory_that_changes_under_a_write_reaches_both_disks_the_same()
    {
        using UnsteadyDisk source = new(Size, 1) { Slowness = 300 }, target = new(Size, 2) { Slowness = 300 };
        using DiskMirror mirror = new(source, target);
        Copy(mirror);
        using DiskDriver driver = new(mirror);
        using NativeArray<byte> memory = new(300_000, 4096);
        using NativeArray<IoVector> vectors = new(1);
        vectors.Span[0] = new IoVector(memory.AddressOf(0), 299_520);
        for (int round = 0; round < 20; round++)
        {
            driver[0].Prepare(BlockKind.Write, 1024, 299_520);
            driver[0].SetData(vectors.Span);
            driver.Node.Submit(driver[0]);
            while (driver.Node.InFlight > 0)
            {
                memory.Span.Fill((byte)Random.Shared.Next());
                driver.Loop.Poll();
            }

            Assert.Equal(-1, FirstDifference(source.Content, target.Content));
        }
    }

    [Fact]
    public void A_target_that_fails_ends_the_copy_and_no_request()
    {
        using UnsteadyDisk source = new(Size), target = new(Size);
        int writes = 0;
        target.Verdict = request => request.Kind == BlockKind.Write && ++writes > 3 ? DiskStatus.NoSpace : DiskStatus.Ok;
        source.Content.AsSpan().Fill(1);
        using DiskMirror mirror = new(source, target);
        Copy(mirror, expectProblem: true);
        Assert.Equal(("the file system of the target is full", DiskStatus.NoSpace), (mirror.Report.Problem, mirror.Report.Status));
        using DiskDriver driver = new(mirror);
        byte[] data = new byte[4096];
        data.AsSpan().Fill(2);
        Assert.Equal(DiskStatus.Ok, driver.Write(8192, data));
        Assert.Equal(DiskStatus.Ok, driver.Flush());
        Assert.Throws<BlockException>(mirror.Seal);
        Assert.Same(source, mirror.End());
        Assert.Equal(2, source.Content[8192]);
    }

    [Theory]
    [InlineData(BlockKind.Write)]
    [InlineData(BlockKind.WriteZeroes)]
    [InlineData(BlockKind.Flush)]
    public void A_request_that_the_target_fails_after_the_copy_succeeds_as_the_source_does(BlockKind kind)
    {
        using UnsteadyDisk source = new(Size), target = new(Size);
        using DiskMirror mirror = new(source, target);
        Copy(mirror);
        target.Verdict = _ => DiskStatus.IoError;
        using DiskDriver driver = new(mirror);
        Assert.Equal(DiskStatus.Ok, Run(driver, kind));
        Assert.Contains("fails requests of the target", mirror.Report.Problem, StringComparison.Ordinal);
    }

    /// <summary>The source is what the guest believes: a write that fails there leaves the target as the source is.</summary>
    [Theory]
    [InlineData(BlockKind.Write)]
    [InlineData(BlockKind.WriteZeroes)]
    public void A_write_that_the_source_fails_is_undone_at_the_target(BlockKind kind)
    {
        using UnsteadyDisk source = new(Size, 3) { Slowness = 100 }, target = new(Size, 4) { Slowness = 100 };
        new Random(1).NextBytes(source.Content);
        using DiskMirror mirror = new(source, target);
        Copy(mirror);
        source.Verdict = request => request.Kind == kind ? DiskStatus.NoSpace : DiskStatus.Ok;
        using DiskDriver driver = new(mirror);
        Assert.Equal(DiskStatus.NoSpace, Run(driver, kind, 600 * 1024));
        Assert.Null(mirror.Report.Problem);
        Assert.Equal(-1, FirstDifference(source.Content, target.Content));
    }

    [Fact]
    public void A_source_that_cannot_be_read_ends_the_copy()
    {
        using UnsteadyDisk source = new(Size), target = new(Size);
        source.Verdict = request => request.Kind == BlockKind.Read && request.Offset >= 1 << 20 ? DiskStatus.IoError : DiskStatus.Ok;
        using DiskMirror mirror = new(source, target);
        Copy(mirror, expectProblem: true);
        Assert.Equal("the disk cannot be read at byte 1048576", mirror.Report.Problem);
        Assert.Equal(1ul << 20, mirror.Report.CopiedBytes);
    }

    /// <summary>While it is being decided which disk counts, nothing is answered that only one of them has.</summary>
    [Theory]
    [InlineData(BlockKind.Write, false)]
    [InlineData(BlockKind.WriteZeroes, false)]
    [InlineData(BlockKind.Flush, false)]
    [InlineData(BlockKind.Write, true)]
    public void A_sealed_mirror_answers_nothing_that_only_the_source_has(BlockKind kind, bool byReset)
    {
        using UnsteadyDisk source = new(Size), target = new(Size);
        using DiskMirror mirror = new(source, target);
        Copy(mirror);
        mirror.Seal();
        using DiskDriver driver = new(mirror);
        Assert.Equal(DiskStatus.Ok, Run(driver, kind));
        target.Verdict = _ => DiskStatus.IoError;
        using NativeArray<byte> memory = new(512);
        using NativeArray<IoVector> vectors = new(1);
        vectors.Span[0] = new IoVector(memory.AddressOf(0), 512);
        BlockKind[] asked = [kind, kind, BlockKind.Read]; // the second one does not even try the target, and who reads goes on
        for (int i = 0; i < asked.Length; i++)
        {
            bool isFlush = asked[i] == BlockKind.Flush;
            driver[i].Prepare(asked[i], isFlush ? 0 : 512ul * (uint)i, isFlush ? 0u : 512u);
            driver[i].SetData(isFlush ? [] : vectors.Span);
            driver.Node.Submit(driver[i]);
            Assert.True(SpinWait.SpinUntil(() => driver.Loop.Poll() >= 0 && mirror.Report.Problem is not null, s_soon));
            for (int more = 0; more < 20; more++)
            {
                driver.Loop.Poll();
            }
        }

        (int, int) before = (driver.Ends, driver.Node.InFlight);
        BlockException? refused = Record.Exception(() => mirror.Finish()) as BlockException;
        if (byReset)
        {
            mirror.ForgetAnswers();
        }
        else
        {
            mirror.End();
        }

        driver.WaitForAll();
        Assert.Equal((DiskStatus.Ok, DiskStatus.Ok), (driver.Status(0), driver.Status(1)));
        Assert.Equal((2, 2), before);
        Assert.NotNull(refused);
    }

    [Fact]
    public void The_target_of_a_finished_mirror_is_the_disk_and_has_been_flushed()
    {
        using UnsteadyDisk source = new(Size), target = new(Size);
        new Random(2).NextBytes(source.Content);
        using (DiskMirror mirror = new(source, target))
        {
            Copy(mirror);
            Assert.Equal(1, target.Flushes);
            using (DiskDriver driver = new(mirror))
            {
                Assert.Equal(DiskStatus.Ok, driver.Flush());
                Assert.Equal((1, 2), (source.Flushes, target.Flushes));
            }

            mirror.Seal();
            Assert.Same(target, mirror.Finish());
        }

        Assert.Equal((true, false), (source.IsClosed, target.IsClosed)); // the one that is the disk is the caller's
        Assert.Equal(-1, FirstDifference(source.Content, target.Content));
    }

    [Fact]
    public void A_copy_that_is_ended_in_the_middle_leaves_the_source_and_stops_at_once()
    {
        using UnsteadyDisk source = new(Size), target = new(Size);
        new Random(2).NextBytes(source.Content);
        byte[] before = (byte[])source.Content.Clone();
        using (DiskMirror mirror = new(source, target))
        {
            mirror.Start(bytesPerSecond: 64 << 10); // a minute
            Assert.True(SpinWait.SpinUntil(() => mirror.Report.CopiedBytes > 0, s_soon));
            Assert.Same(source, mirror.End());
            Assert.InRange(mirror.Report.CopiedBytes, 1ul, 2ul << 20);
            using DiskDriver driver = new(mirror);
            Assert.Equal(DiskStatus.Ok, driver.Write(0, new byte[512]));
        }

        Assert.Equal((false, true), (source.IsClosed, target.IsClosed));
        Assert.Equal(before[512], target.Content[512]);
        Assert.Equal(before[0], target.Content[0]); // what was written after the end went to the source only
        Assert.Equal(0, source.Content[0]);
    }

    [Fact]
    public void Zeros_and_holes_of_the_source_are_holes_of_the_target_whatever_was_there()
    {
        const int size = 8 << 20;
        using TemporaryFile from = new(size), to = new(size);
        byte[] content = new byte[size];
        new Random(1).NextBytes(content.AsSpan(1 << 20, 100_000)); // and zeros behind it in its chunk
        using (FileStream file = new(from.Path, FileMode.Open))
        {
            file.Position = 1 << 20;
            file.Write(content, 1 << 20, 1 << 20);
        }

        File.WriteAllBytes(to.Path, Enumerable.Repeat((byte)7, size).ToArray());
        RawFileBackend target = RawFileBackend.Open(to.Path);
        using DiskMirror mirror = new(RawFileBackend.Open(from.Path), target);
        Copy(mirror);
        Assert.InRange(BlockFile.AllocatedBytes(target.Buffered), 100_000ul, 256ul << 10);
        mirror.Dispose();
        Assert.Equal(-1, FirstDifference(content, File.ReadAllBytes(to.Path)));
    }

    [Fact]
    public void A_source_that_grows_meanwhile_has_its_old_size_until_the_copy_is_over()
    {
        using TemporaryFile from = new(Size);
        RawFileBackend source = RawFileBackend.Open(from.Path);
        using DiskMirror mirror = new(source, new MemoryDiskBackend(Size));
        using (FileStream file = new(from.Path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
        {
            file.SetLength(2 * Size);
        }

        ((IDiskBackend)mirror).Refresh();
        source.Refresh();
        Copy(mirror);
        Assert.Equal((ulong)Size, mirror.Geometry.CapacityBytes);
        using DiskDriver driver = new(mirror);
        Assert.Equal((ulong)Size, driver.Node.Geometry.CapacityBytes);
    }

    [Fact]
    public void The_copier_keeps_to_its_rate()
    {
        using UnsteadyDisk source = new(Size), target = new(Size);
        new Random(2).NextBytes(source.Content);
        using DiskMirror mirror = new(source, target);
        long begin = Environment.TickCount64;
        mirror.Start(bytesPerSecond: 4 << 20);
        Assert.True(SpinWait.SpinUntil(() => mirror.Report.State == MirrorState.Mirrored, s_soon));
        Assert.InRange(Environment.TickCount64 - begin, 490, 20_000); // two chunks go before the last waits
    }

    public static TheoryData<int, int, bool, string> Unfit => new()
    {
        { Size + 512, 512, false, "it has 3146752 bytes, and the disk has 3146240" },
        { Size - 512, 512, false, "it has 3145728 bytes, and the disk has 3146240" },
        { Size, 4096, false, "its blocks have 4096 bytes, and those of the disk have 512" },
        { Size, 512, true, "it is read-only" },
    };

    [Theory]
    [MemberData(nameof(Unfit))]
    public void A_target_that_cannot_become_a_copy_is_refused(int size, int blockSize, bool readOnly, string why)
    {
        using MemoryDiskBackend source = new(Size);
        using IDiskBackend target = readOnly ? new MemoryDiskBackend(size, readOnly: true) : new UnsteadyDisk(size, 0, blockSize);
        BlockException refused = Assert.Throws<BlockException>(() => new DiskMirror(source, target));
        Assert.Equal($"the target cannot become a copy of the disk: {why}", refused.Message);
    }

    [Fact]
    public void A_step_out_of_turn_is_refused_and_names_both_states()
    {
        using DiskMirror mirror = new(new MemoryDiskBackend(Size), new MemoryDiskBackend(Size));
        Refused(mirror.Seal, "Idle", "Sealed");
        Refused(() => mirror.Finish(), "Idle", "Finished");
        Copy(mirror);
        Refused(() => mirror.Start(), "Mirrored", "Copying");
        Refused(() => mirror.Finish(), "Mirrored", "Finished");
        mirror.Seal();
        Refused(mirror.Seal, "Sealed", "Sealed");
        using IDiskBackend source = mirror.End();
        Refused(() => mirror.End(), "Ended", "Ended");
        Refused(() => mirror.Finish(), "Ended", "Finished");

        static void Refused(Action step, string from, string to) => Assert.Equal(
            $"A mirror that is {from} cannot become {to}.", Assert.Throws<InvalidOperationException>(step).Message);
    }

    private static DiskStatus Run(DiskDriver driver, BlockKind kind, int length = 512) => kind switch
    {
        BlockKind.Write => driver.Write(0, Enumerable.Repeat((byte)9, length).ToArray()),
        BlockKind.WriteZeroes => driver.WriteZeroes(0, (ulong)length, mayUnmap: true),
        _ => driver.Flush(),
    };

    private static void Copy(DiskMirror mirror, bool expectProblem = false)
    {
        mirror.Start();
        Assert.True(SpinWait.SpinUntil(
            () => mirror.Report is { State: MirrorState.Mirrored } or { Problem: not null }, s_soon), mirror.Report.ToString());
        Assert.Equal(expectProblem, mirror.Report.Problem is not null);
    }

    private static int FirstDifference(byte[] one, byte[] other)
    {
        int at = one.AsSpan().CommonPrefixLength(other);
        return at == one.Length && at == other.Length ? -1 : at;
    }
}
