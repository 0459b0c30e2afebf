using Vmm.Interop;
using Vmm.Io;
using Vmm.Storage.Tests.Crash;

namespace Vmm.Storage.Tests;

/// <summary>
/// What every stack of nodes has to do when several loops use it, when what lies below it fails or hangs, and about discards
/// (docs/storage-conformance.md). The rest of the suite is in <see cref="NodeConformanceTests"/>.
/// </summary>
public sealed class StackConformanceTests
{
    private const int Size = (4 << 20) + 512;

    public static TheoryData<string> Stacks => Stack.All;

    public static TheoryData<string, int> StacksAndLoops
    {
        get
        {
            TheoryData<string, int> all = [];
            foreach (string name in Stack.Names.Append("limits over router over direct"))
            {
                all.Add(name, 2);
                all.Add(name, 4);
            }

            return all;
        }
    }

    /// <summary>Sectors of one block and of one cluster are in flight in several loops at once.</summary>
    [Theory]
    [MemberData(nameof(StacksAndLoops))]
    public void Several_loops_at_one_disk_agree_with_one_model(string name, int loops)
    {
        using Stack stack = new(name, Size);
        DiskModel model = new(new SparseBytes { Length = Size });
        for (int seed = 0; seed < 2; seed++)
        {
            Workload load = new(seed, loops, Requests: 60) { Places = [(0, 1 << 20), (Size - (1 << 20), Size)] };
            string? wrong = load.Run(stack.AsDisk(), model, out bool closed);
            Assert.True(wrong is null && closed, $"seed {seed}: {wrong}");
            wrong = DiskReader.Read(stack.Backend, load.Places, model.WrongToRead);
            Assert.True(wrong is null, $"seed {seed}, at the end: {wrong}");
        }
    }

    /// <summary>A discard is a hint: each sector of its range is zeros or as it was, and no other sector is touched.</summary>
    [Theory]
    [MemberData(nameof(Stacks))]
    public void A_discard_leaves_zeros_or_what_was_there_whatever_its_alignment(string name)
    {
        using Stack stack = new(name, Size);
        using DiskDriver driver = stack.CreateDriver();
        Random random = new(4);
        byte[] before = new byte[Size], after = new byte[Size];
        DiskModel.Fill(before, 0, 1);
        Assert.Equal(DiskStatus.Ok, driver.Write(0, before));
        for (int round = 0; round < 20; round++)
        {
            int at = random.Next(Size / 512) * 512, length = Math.Min(random.Next(1, 600) * 512, Size - at);
            Assert.Equal(DiskStatus.Ok, driver.Discard((ulong)at, (ulong)length));
            Assert.Equal(DiskStatus.Ok, driver.Read(0, after));
            for (int sector = 0; sector < Size; sector += 512)
            {
                ReadOnlySpan<byte> there = after.AsSpan(sector, 512), was = before.AsSpan(sector, 512);
                bool may = there.SequenceEqual(was) || (sector >= at && sector < at + length && !there.ContainsAnyExcept((byte)0));
                Assert.True(may, $"round {round}: sector {sector / 512} after a discard of {length} at {at}");
            }

            after.CopyTo(before, 0);
        }
    }

    /// <summary>The end of a request is never heard inside its submission, and of each request exactly once, in flight or not.</summary>
    [Theory]
    [MemberData(nameof(Stacks))]
    public void Many_requests_at_once_end_once_each_and_not_while_they_are_submitted(string name)
    {
        const int depth = 32;
        using Stack stack = new(name, Size);
        using DiskDriver driver = stack.CreateDriver(depth);
        using NativeArray<byte> memory = new(depth * 4096, 4096);
        using NativeArray<IoVector> vectors = new(depth);
        for (int round = 1; round <= 10; round++)
        {
            for (int i = 0; i < depth; i++)
            {
                BlockKind kind = (BlockKind)((i % 5) + 1);
                ulong offset = kind == BlockKind.Flush ? 0 : i % 7 == 0 ? Size : (ulong)i * 4096; // some of them outside
                vectors.Span[i] = new IoVector(memory.AddressOf(i * 4096), 4096);
                driver[i].Prepare(kind, offset, kind == BlockKind.Flush ? 0u : 4096u);
                driver[i].SetData(vectors.Span.Slice(i, 1));
                driver.Node.Submit(driver[i]);
                Assert.Equal(depth * (round - 1), driver.Ends);
            }

            driver.WaitForAll();
            Assert.Equal(depth * round, driver.Ends);
            Assert.All(Enumerable.Range(0, depth), i => Assert.Equal(
                i % 7 == 0 && driver[i].Kind != BlockKind.Flush ? DiskStatus.IoError : DiskStatus.Ok, driver.Status(i)));
        }
    }

    /// <summary>Each kind of request tells of the host's failure, with its kind, and the next one is served.</summary>
    [Theory]
    [InlineData("crash", DiskStatus.IoError)]
    [InlineData("crash", DiskStatus.NoSpace)]
    [InlineData("router over crash", DiskStatus.NoSpace)]
    [InlineData("limits over router over crash", DiskStatus.IoError)]
    [InlineData("late over crash", DiskStatus.NoSpace)]
    public void Failures_of_the_file_are_told_by_the_requests_that_meet_them(string name, DiskStatus status)
    {
        using Stack stack = new(name, Size);
        using DiskDriver driver = stack.CreateDriver();
        byte[] data = new byte[4096];
        foreach (FileSteps step in new[] { FileSteps.Read, FileSteps.Write, FileSteps.Flush })
        {
            stack.Crash!.Plan(f => f.FailAt(step, 1, status));
            DiskStatus[] ends = step switch
            {
                FileSteps.Read => [driver.Read(0, data), driver.Read(0, data)],
                FileSteps.Write => [driver.Write(0, data), driver.WriteZeroes(0, 4096, mayUnmap: true)],
                _ => [driver.WriteThrough(0, data), driver.Read(0, data)], // the flush of a write with FUA
            };
            Assert.Equal([status, DiskStatus.Ok], ends);
        }
    }

    /// <summary>A request that failed had its effect, or not; the others are not touched by it.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_router_hands_failures_of_the_node_below_on_in_any_order(bool hadEffect)
    {
        using MemoryDiskBackend disk = new(1 << 20);
        FaultNode? fault = null;
        IBlockNode? leaf = null;
        using DiskDriver driver = new(loop => new RequestRouter(loop, fault = new FaultNode(loop, leaf = disk.CreateNode(loop, 8))));
        DiskStatus Odd(BlockRequest request) => request.Offset % 1024 == 0 ? DiskStatus.Ok : DiskStatus.NoSpace;
        (fault!.Refuses, fault.Spoils, fault.Reorders) = (hadEffect ? null : Odd, hadEffect ? Odd : null, true);
        byte[] ones = new byte[512];
        ones.AsSpan().Fill(1);
        Assert.Equal(DiskStatus.Ok, driver.Write(0, ones));
        Assert.Equal(DiskStatus.NoSpace, driver.Write(512, ones));
        Assert.Equal((1, hadEffect ? 1 : 0), (disk.Content[0], disk.Content[512]));
        fault.Dispose();
        leaf!.Dispose();
    }

    /// <summary>What hangs below is in flight: closing and disposing wait for it, and end when it does.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Closing_waits_for_a_request_that_hangs(bool flushes)
    {
        using MemoryDiskBackend disk = new(1 << 20);
        FaultNode? fault = null;
        IBlockNode? leaf = null;
        using DiskDriver driver = new(loop => new RequestRouter(loop, fault = new FaultNode(loop, leaf = disk.CreateNode(loop, 8))));
        fault!.Stalls = true;
        driver[0].Prepare(flushes ? BlockKind.Flush : BlockKind.WriteZeroes, 0, flushes ? 0u : 512u);
        driver.Node.Submit(driver[0]);
        Task closed = driver.Node.FlushAndCloseAsync().AsTask();
        for (int round = 0; round < 20; round++)
        {
            driver.Loop.Poll();
        }

        Assert.False(closed.IsCompleted);
        Assert.Equal((1, 0), (driver.Node.InFlight, driver.Ends));
        fault.Release();
        driver.Node.FlushAndClose(driver.Loop);
        Assert.True(closed.IsCompletedSuccessfully);
        Assert.Equal((0, 1), (driver.Node.InFlight, driver.Ends));
        fault.FlushAndClose(driver.Loop);
        fault.Dispose();
        leaf!.Dispose();
    }

    /// <summary>After a flush, or with FUA, what was acknowledged survives a power cut, through every node on the way.</summary>
    [Theory]
    [InlineData("crash")]
    [InlineData("router over crash")]
    [InlineData("limits over late over crash")]
    public void What_is_durable_survives_a_power_cut(string name)
    {
        using Stack stack = new(name, Size);
        using DiskDriver driver = stack.CreateDriver();
        byte[] flushed = new byte[8192], through = new byte[4096], last = new byte[512], there = new byte[12288];
        DiskModel.Fill(flushed, 0, 1);
        DiskModel.Fill(through, 16, 2);
        Assert.Equal(DiskStatus.Ok, driver.Write(0, flushed));
        Assert.Equal(DiskStatus.Ok, driver.Flush());
        Assert.Equal(DiskStatus.Ok, driver.WriteThrough(8192, through));
        Assert.Equal(DiskStatus.Ok, driver.Write(0, last)); // may be lost
        bool lost = false, kept = false;
        for (int cut = 0; cut < 30; cut++)
        {
            stack.Crash!.CutPower(new Random(cut)).Read(there, 0);
            Assert.Equal([.. flushed[512..], .. through], there[512..]);
            lost |= there[0] != 0;
            kept |= there[0] == 0;
        }

        Assert.True(lost && kept);
    }
}
