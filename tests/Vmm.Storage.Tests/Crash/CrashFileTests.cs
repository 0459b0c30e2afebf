using Vmm.Io;

namespace Vmm.Storage.Tests.Crash;

/// <summary>The kit that judges image engines: it can lose, tear and reorder, and it keeps what it owes.</summary>
public sealed class CrashFileTests
{
    private const int Sectors = 16, Size = Sectors * 512;

    [Fact]
    public void What_was_flushed_survives_every_cut_and_the_rest_is_lost_torn_or_reordered()
    {
        using CrashFile file = new();
        file.Write(Filled(1, Size), 0);
        file.Write(Filled(9, Size), Size);
        file.Flush();
        file.Write(Filled(2, Size), 0);
        file.Write(Filled(3, Size), 0);
        bool none = false, all = false, torn = false, older = false;
        Random random = new(1);
        for (int cut = 0; cut < 400; cut++)
        {
            SparseBytes after = file.CutPower(random);
            byte[] kept = Read(after, Size, Size), there = Read(after, 0, Size);
            Assert.Equal(Filled(9, Size), kept);
            Assert.All(there, b => Assert.InRange(b, 1, 3));
            none |= there.All(b => b == 1);
            all |= there.All(b => b == 3);
            older |= there.All(b => b == 2); // written before 3, which is lost
            torn |= there.Distinct().Count() > 1;
            Assert.All(there.Chunk(512), sector => Assert.Single(sector.Distinct())); // a sector is never torn
        }

        Assert.Equal((true, true, true, true), (none, all, torn, older));
    }

    [Fact]
    public void Growth_and_given_back_space_may_be_lost_or_not()
    {
        using CrashFile file = new();
        file.Write(Filled(1, Size), 0);
        file.Flush();
        file.Grow(1ul << 40);
        Assert.True(file.TryPunch(0, Size));
        Assert.Equal(1ul << 40, file.Length);
        Assert.Equal(new byte[Size], Read(file.Content(), 0, Size));
        HashSet<ulong> lengths = [];
        HashSet<int> holes = [];
        Random random = new(2);
        for (int cut = 0; cut < 200; cut++)
        {
            SparseBytes after = file.CutPower(random);
            lengths.Add(after.Length);
            holes.Add(Read(after, 0, Size).Count(b => b == 0) / 512);
        }

        Assert.Equal([Size, 1ul << 40], lengths.Order().ToArray());
        Assert.Contains(0, holes);
        Assert.Contains(Sectors, holes);
        Assert.True(holes.Count > 2, "and any part of it");
        Assert.True(file.Content().Pages < 4, "a file of a TiB costs what was touched");
    }

    [Fact]
    public void Bytes_of_a_sector_that_were_not_written_are_what_they_were()
    {
        using CrashFile file = new();
        file.Write(Filled(1, 1024), 0);
        file.Flush();
        file.Write(Filled(2, 600), 300);
        Assert.Equal([.. Filled(1, 300), .. Filled(2, 600), .. Filled(1, 124)], Read(file.Content(), 0, 1024));
        Random random = new(3);
        for (int cut = 0; cut < 50; cut++)
        {
            byte[] after = Read(file.CutPower(random), 0, 1024);
            Assert.True(after[299] == 1 && after[900] == 1 && after[300] == after[511] && after[512] == after[899]);
        }
    }

    /// <summary>As Linux does it: the pages are clean after an fsync that failed, and the next one succeeds.</summary>
    [Fact]
    public void A_failed_flush_loses_what_it_was_for_although_the_next_one_succeeds()
    {
        using CrashFile file = new();
        file.Write(Filled(1, Size), 0);
        file.Plan(f => f.FailAt(FileSteps.Flush, 1, DiskStatus.IoError));
        Assert.Equal(DiskStatus.IoError, Assert.Throws<BlockException>(file.Flush).Status);
        file.Flush();
        Assert.Equal(Filled(1, Size), Read(file.Content(), 0, Size)); // as long as the machine runs nobody sees it
        Assert.NotEqual(Filled(1, Size), Read(file.CutPower(new Random(4)), 0, Size));
    }

    [Fact]
    public void Flushes_that_were_in_flight_when_one_failed_fail_as_well()
    {
        using CrashFile file = new();
        file.Write(Filled(1, 512), 0);
        JournalEntry[] first = file.BeginFlush(), second = file.BeginFlush();
        file.Plan(f => f.FailAt(FileSteps.Flush, 1, DiskStatus.IoError));
        Assert.Equal(DiskStatus.IoError, file.TryFlush(first));
        Assert.Equal(DiskStatus.IoError, file.TryFlush(second));
        Assert.Equal(DiskStatus.Ok, file.TryFlush(file.BeginFlush()));
    }

    [Fact]
    public void A_flush_covers_what_was_acknowledged_when_it_began_and_nothing_else()
    {
        using CrashFile file = new();
        file.Write(Filled(1, Size), 0);
        JournalEntry[] covered = file.BeginFlush();
        file.Write(Filled(2, 512), 4096);
        Assert.Equal(DiskStatus.Ok, file.TryFlush(covered));
        HashSet<byte> seen = [];
        Random random = new(5);
        for (int cut = 0; cut < 50; cut++)
        {
            byte[] after = Read(file.CutPower(random), 0, Size);
            Assert.Equal(1, after[0]);
            seen.Add(after[4096]);
        }

        Assert.Equal([1, 2], seen.Order().ToArray());
    }

    [Fact]
    public void A_write_with_fua_survives_alone()
    {
        using CrashFile file = new();
        using DiskDriver driver = new(file);
        Assert.Equal(DiskStatus.Ok, driver.Write(0, Filled(1, 512)));
        Assert.Equal(DiskStatus.Ok, driver.WriteThrough(512, Filled(2, 512)));
        HashSet<byte> seen = [];
        Random random = new(6);
        for (int cut = 0; cut < 50; cut++)
        {
            byte[] after = Read(file.CutPower(random), 0, 1024);
            seen.Add(after[0]);
            Assert.Equal(2, after[512]);
        }

        Assert.Equal([0, 1], seen.Order().ToArray());
    }

    /// <summary>Of two writes that were in flight at once the later one stays, when a flush that covers only it came between.</summary>
    [Fact]
    public void What_a_flush_made_durable_is_not_undone_by_an_older_write_that_was_acknowledged_later()
    {
        using CrashFile file = new();
        Assert.Equal(DiskStatus.Ok, file.TryWrite(Filled(1, 2048), 0, out JournalEntry? older));
        file.Write(Filled(2, 512), 512);
        file.Flush();
        file.Acknowledge(older);
        file.Flush();
        Assert.Equal([.. Filled(1, 512), .. Filled(2, 512), .. Filled(1, 1024)], Read(file.CutPower(new Random(7)), 0, 2048));
    }

    [Theory]
    [InlineData(DiskStatus.NoSpace)]
    [InlineData(DiskStatus.IoError)]
    public void Each_step_can_be_made_to_fail(DiskStatus status)
    {
        for (int step = 1; step <= 5; step++)
        {
            using CrashFile file = new();
            using DiskDriver driver = new(file);
            file.Plan(f => f.FailAt(FileSteps.Changes, step, status));
            DiskStatus[] ends =
            [
                StatusOf(() => file.Write(new byte[512], 0)), StatusOf(() => file.Grow(1 << 20)), StatusOf(file.Flush),
                StatusOf(() => file.TryPunch(0, 512)), driver.Write(0, new byte[512]),
            ];
            Assert.Equal([.. Enumerable.Range(1, 5).Select(n => n == step ? status : DiskStatus.Ok)], ends);
            Assert.Equal((5, 1), (file.Changes, file.Struck));
        }
    }

    [Fact]
    public void A_full_file_system_stays_full_until_there_is_space_again_and_overwrites_a_part_at_most()
    {
        using CrashFile file = new();
        using DiskDriver driver = new(file);
        file.Plan(f => f.FailAt(FileSteps.NeedSpace, 2, DiskStatus.NoSpace, count: int.MaxValue));
        Assert.Equal(DiskStatus.Ok, driver.Write(0, Filled(1, Size)));
        for (int i = 0; i < 20; i++)
        {
            Assert.Equal(DiskStatus.NoSpace, driver.Write(0, Filled(2, Size)));
            Assert.Equal(DiskStatus.NoSpace, StatusOf(() => file.Grow(1 << 30)));
            Assert.Equal(DiskStatus.Ok, driver.Flush());
        }

        file.Plan(f => f.Clear());
        byte[] there = new byte[Size];
        Assert.Equal(DiskStatus.Ok, driver.Read(0, there));
        Assert.All(there, b => Assert.InRange(b, 1, 2));
        Assert.Equal(DiskStatus.Ok, driver.Write(0, Filled(3, Size)));
    }

    [Fact]
    public void Nothing_can_be_done_after_a_cut_and_a_planned_one_comes_amid_its_step()
    {
        using CrashFile file = new();
        using DiskDriver driver = new(file);
        file.Plan(f => f.CutAt(3));
        Assert.Equal(DiskStatus.Ok, driver.Write(0, Filled(1, Size)));
        Assert.Equal(DiskStatus.Ok, driver.Flush());
        Assert.Equal(DiskStatus.IoError, driver.Write(0, Filled(2, Size)));
        Assert.True(file.IsCut);
        Assert.Equal(DiskStatus.IoError, driver.Read(0, new byte[512]));
        Assert.Equal(DiskStatus.IoError, driver.Flush());
        Assert.Throws<BlockException>(() => file.Write(new byte[512], 1 << 20));
        HashSet<byte> seen = [.. Enumerable.Range(0, 200).SelectMany(n => Read(file.CutPower(new Random(n)), 0, Size))];
        Assert.Equal([1, 2], seen.Order().ToArray());
    }

    [Fact]
    public void Delays_reorder_completions_and_effects_and_the_same_seed_does_it_again()
    {
        int[][] orders = [.. new[] { 1, 1, 2 }.Select(OrderOfEnds)];
        Assert.Equal(orders[0], orders[1]);
        Assert.NotEqual(orders[0], orders[2]);
        Assert.NotEqual(orders[0].Order(), orders[0]);
        Assert.Equal(Enumerable.Range(0, 32), orders[0].Order()); // each ends once

        static int[] OrderOfEnds(int seed)
        {
            using CrashFile file = new(seed: seed) { Delays = true };
            Order order = new();
            using IoLoop loop = new();
            using IBlockNode node = file.CreateNode(loop, 32);
            for (int i = 0; i < 32; i++)
            {
                BlockRequest request = new(order, i);
                loop.Add(request);
                request.Prepare(BlockKind.WriteZeroes, (ulong)i * 512, 512);
                node.Submit(request);
            }

            node.WaitForAll(loop);
            return [.. order.Ends];
        }
    }

    [Fact]
    public void A_writer_that_forgets_its_flush_is_caught_and_one_that_flushes_is_not()
    {
        Assert.True(Damaged(flushes: false) > 0);
        Assert.Equal(0, Damaged(flushes: true));

        // Data, then the mark that it is valid; the mark must never be seen without the data.
        static int Damaged(bool flushes)
        {
            int damaged = 0;
            for (int seed = 0; seed < 100; seed++)
            {
                Random random = new(seed);
                using CrashFile file = new();
                file.Plan(f => f.CutAt(random.Next(1, 40)));
                try
                {
                    for (byte record = 1; ; record++)
                    {
                        file.Write(Filled(record, Size), record * (ulong)Size);
                        if (flushes)
                        {
                            file.Flush();
                        }

                        file.Write([record], 0);
                    }
                }
                catch (BlockException)
                {
                    SparseBytes after = file.CutPower(random);
                    byte mark = Read(after, 0, 1)[0];
                    damaged += mark == 0 || Read(after, mark * (ulong)Size, Size).All(b => b == mark) ? 0 : 1;
                }
            }

            return damaged;
        }
    }

    [Fact]
    public void A_file_of_gibibytes_is_loaded_and_saved_with_its_holes()
    {
        using TemporaryFile path = new(0);
        SparseBytes bytes = new() { Length = (3ul << 30) + 17 };
        bytes.Write(Filled(5, 9000), (2ul << 30) - 1000);
        bytes.Clear((2ul << 30) - 512, 1024); // across pages, none of them whole
        Assert.Equal([5, 0, 0, 5], new[] { -513, -512, 511, 512 }.Select(at => Read(bytes, (ulong)((2L << 30) + at), 1)[0]));
        bytes.Clear(2ul << 30, 4096);
        bytes.SaveTo(path.Path);
        SparseBytes again = SparseBytes.Load(path.Path);
        Assert.Equal(bytes.Length, again.Length);
        Assert.Equal(Read(bytes, (2ul << 30) - 2000, 12000), Read(again, (2ul << 30) - 2000, 12000));
        Assert.InRange(again.Pages, 1, 3);
    }

    private static byte[] Filled(byte value, int length)
    {
        byte[] bytes = new byte[length];
        bytes.AsSpan().Fill(value);
        return bytes;
    }

    private static byte[] Read(SparseBytes file, ulong offset, int length)
    {
        byte[] bytes = new byte[length];
        file.Read(bytes, offset);
        return bytes;
    }

    private static DiskStatus StatusOf(Action action)
    {
        try
        {
            action();
            return DiskStatus.Ok;
        }
        catch (BlockException error)
        {
            return error.Status;
        }
    }

    private sealed class Order : IBlockOwner
    {
        public List<int> Ends { get; } = [];

        public void Completed(BlockRequest request, DiskStatus status) => Ends.Add(request.Token);
    }
}
