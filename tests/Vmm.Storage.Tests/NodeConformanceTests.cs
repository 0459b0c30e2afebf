using System.Runtime.InteropServices;
using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.Tests;

/// <summary>What every node and every stack of nodes has to do: one suite for all of them.</summary>
public sealed class NodeConformanceTests
{
    private const int Size = (1 << 20) + 512;

    public static TheoryData<string> Stacks => Stack.All;

    public static TheoryData<string> FileStacks => Stack.OnFiles;

    public static TheoryData<string> FrugalStacks => Stack.Frugal;

    public static TheoryData<string> GrowingStacks => Stack.Growing;

    [Theory]
    [MemberData(nameof(Stacks))]
    public void Random_requests_agree_with_a_model(string name)
    {
        using Stack stack = new(name, Size);
        using DiskDriver driver = stack.CreateDriver();
        Random random = new(20261123);
        byte[] model = new byte[Size];
        for (int i = 0; i < 600; i++)
        {
            int sectors = random.Next(1, 64);
            int at = random.Next(0, (Size / 512) - sectors) * 512;
            int length = sectors * 512;
            int shift = random.Next(3) == 0 ? random.Next(1, 600) : 0;
            int[] cuts = random.Next(2) == 0 ? [] : [length / 3, length / 2];
            byte[] data = new byte[length];
            switch (random.Next(7))
            {
                case 0 or 1:
                    random.NextBytes(data);
                    Assert.Equal(DiskStatus.Ok, driver.Write((ulong)at, data, shift, cuts));
                    data.CopyTo(model, at);
                    break;
                case 2 or 3:
                    Assert.Equal(DiskStatus.Ok, driver.Read((ulong)at, data, shift, cuts));
                    Assert.True(
                        data.AsSpan().SequenceEqual(model.AsSpan(at, length)), $"request {i}: {length} bytes at {at}, shift {shift}");
                    break;
                case 4:
                    Assert.Equal(DiskStatus.Ok, driver.WriteZeroes((ulong)at, (ulong)length, random.Next(2) == 0));
                    model.AsSpan(at, length).Clear();
                    break;
                case 5:
                    random.NextBytes(data);
                    Assert.Equal(DiskStatus.Ok, driver.WriteThrough((ulong)at, data));
                    data.CopyTo(model, at);
                    break;
                default:
                    Assert.Equal(DiskStatus.Ok, driver.Flush());
                    break;
            }
        }

        byte[] all = new byte[Size];
        Assert.Equal(DiskStatus.Ok, driver.Read(0, all));
        Assert.Equal(model, all);
    }

    [Theory]
    [MemberData(nameof(Stacks))]
    public void The_last_sector_can_be_written_and_what_lies_behind_it_is_an_error(string name)
    {
        using Stack stack = new(name, Size);
        using DiskDriver driver = stack.CreateDriver();
        byte[] data = new byte[512];
        data.AsSpan().Fill(0x5a);
        Assert.Equal(DiskStatus.Ok, driver.Write(Size - 512, data));
        Assert.Equal(DiskStatus.Ok, driver.Read(Size - 512, data));
        Assert.Equal(0x5a, data[511]);
        Assert.Equal(DiskStatus.IoError, driver.Read(Size, data));
        Assert.Equal(DiskStatus.IoError, driver.Read(Size - 512, new byte[1024]));
        Assert.Equal(DiskStatus.IoError, driver.Write(Size - 512, new byte[1024]));
        Assert.Equal(DiskStatus.IoError, driver.WriteZeroes(Size, 512, mayUnmap: true));
        Assert.Equal(DiskStatus.IoError, driver.Discard(Size - 512, 1024));
        Assert.Equal(DiskStatus.IoError, driver.Run(BlockKind.Read, ulong.MaxValue - 511, 512)); // offset and length together wrap
        Assert.Equal(DiskStatus.Ok, driver.Read(Size - 512, data)); // and nothing of that happened
        Assert.Equal(0x5a, data[511]);
    }

    [Theory]
    [MemberData(nameof(Stacks))]
    public void A_read_only_disk_reads_and_refuses_everything_that_writes(string name)
    {
        using Stack stack = new(name, 1 << 16, readOnly: true);
        using DiskDriver driver = stack.CreateDriver();
        Assert.True(driver.Node.Geometry.ReadOnly);
        Assert.Equal(DiskAbilities.None, driver.Node.Geometry.Abilities);
        byte[] data = new byte[4096];
        Assert.Equal(DiskStatus.Ok, driver.Read(0, data));
        data.AsSpan().Fill(1);
        Assert.Equal(DiskStatus.IoError, driver.Write(0, data));
        Assert.Equal(DiskStatus.IoError, driver.WriteZeroes(0, 4096, mayUnmap: false));
        Assert.Equal(DiskStatus.IoError, driver.Discard(0, 4096));
        Assert.Equal(DiskStatus.Ok, driver.Flush());
    }

    [Theory]
    [MemberData(nameof(FileStacks))]
    public void A_file_truncated_under_the_disk_reads_as_an_error(string name)
    {
        using Stack stack = new(name, Size);
        using DiskDriver driver = stack.CreateDriver();
        using (FileStream file = new(stack.Path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
        {
            file.SetLength(8192);
        }

        Assert.Equal(DiskStatus.IoError, driver.Read(4096, new byte[16384]));
        Assert.Equal(DiskStatus.Ok, driver.Read(4096, new byte[4096]));
    }

    [Theory]
    [MemberData(nameof(GrowingStacks))]
    public void A_disk_that_grows_under_requests_takes_more_behind_its_old_end_and_never_shrinks(string name)
    {
        using Stack stack = new(name, 1 << 20);
        using DiskDriver driver = stack.CreateDriver();
        int told = 0;
        stack.Backend.OnGeometryChanged(() => told++);
        byte[] data = new byte[4096], back = new byte[4096];
        for (ulong end = 1 << 20; end < 4 << 20; end += 1 << 20)
        {
            Assert.Equal(DiskStatus.IoError, driver.Write(end, data));
            Resize(stack.Path, (long)end + (1 << 20));
            Assert.Equal(DiskStatus.IoError, driver.Write(end, data)); // nobody said so yet
            driver[1].Prepare(BlockKind.WriteZeroes, 0, 1 << 20);
            driver.Node.Submit(driver[1]); // in flight while it grows
            stack.Backend.Refresh();
            driver.WaitForAll();
            Assert.Equal(DiskStatus.Ok, driver.Status(1));
            Assert.Equal(end + (1 << 20), driver.Node.Geometry.CapacityBytes);
            data.AsSpan().Fill((byte)(end >> 20));
            Assert.Equal(DiskStatus.Ok, driver.Write(end + (1 << 20) - 4096, data));
            Assert.Equal(DiskStatus.Ok, driver.Read(end + (1 << 20) - 4096, back));
            Assert.Equal(data, back);
            Assert.Equal(DiskStatus.Ok, driver.Read(end, back));
            Assert.Equal(new byte[4096], back);
        }

        Assert.Equal(3, told);
        stack.Backend.Refresh();
        Assert.Equal(3, told); // nothing new
        Resize(stack.Path, 1 << 20);
        Assert.Equal(BlockErrorKind.BadSize, Assert.Throws<BlockException>(stack.Backend.Refresh).Kind);
        Assert.Equal(4UL << 20, driver.Node.Geometry.CapacityBytes);
        Assert.Equal(DiskStatus.IoError, driver.Read(2 << 20, back));
        Assert.Equal(DiskStatus.Ok, driver.Read(0, back));
    }

    private static void Resize(string path, long bytes)
    {
        using FileStream file = new(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
        file.SetLength(bytes);
    }

    [Theory]
    [InlineData("memory")]
    [InlineData("direct")]
    [InlineData("router over direct")]
    public void Discarded_and_zeroed_ranges_read_as_zeros_and_their_neighbours_stay(string name)
    {
        using Stack stack = new(name, Size);
        using DiskDriver driver = stack.CreateDriver();
        byte[] data = new byte[Size - 512];
        data.AsSpan().Fill(0x77);
        Assert.Equal(DiskStatus.Ok, driver.Write(0, data));
        Assert.Equal(DiskStatus.Ok, driver.Discard(4096, 65536));
        Assert.Equal(DiskStatus.Ok, driver.WriteZeroes(131072, 4096, mayUnmap: true));
        Assert.Equal(DiskStatus.Ok, driver.WriteZeroes(139264, 512, mayUnmap: false));
        data.AsSpan(4096, 65536).Clear();
        data.AsSpan(131072, 4096).Clear();
        data.AsSpan(139264, 512).Clear();
        byte[] there = new byte[data.Length];
        Assert.Equal(DiskStatus.Ok, driver.Read(0, there));
        Assert.Equal(data, there);
    }

    /// <summary>A buffered write is done as it is submitted; what makes it durable is one step more.</summary>
    [Theory]
    [InlineData("buffered", BlockKind.Write)]
    [InlineData("router over buffered", BlockKind.Write)]
    public void A_request_with_fua_ends_after_a_flush_of_its_own(string name, BlockKind kind)
    {
        using Stack stack = new(name, Size);
        using DiskDriver driver = stack.CreateDriver();
        using NativeArray<byte> memory = new(4096, 4096);
        using NativeArray<IoVector> vectors = new(1);
        vectors.Span[0] = new IoVector(memory.AddressOf(0), 4096);
        foreach (BlockFlags flags in new[] { BlockFlags.None, BlockFlags.Fua })
        {
            driver[0].Prepare(kind, 0, 4096, flags);
            driver[0].SetData(vectors.Span);
            driver.Node.Submit(driver[0]);
            driver.Loop.Poll();
            Assert.Equal(flags == BlockFlags.None ? BlockState.Done : BlockState.Running, driver[0].State);
            driver.WaitForAll();
            Assert.Equal(DiskStatus.Ok, driver.Status(0));
        }
    }

    [Theory]
    [MemberData(nameof(FileStacks))]
    public void What_was_written_before_a_flush_is_in_the_file_after_it(string name)
    {
        using Stack stack = new(name, Size);
        using DiskDriver driver = stack.CreateDriver();
        byte[] data = new byte[8192];
        for (int round = 1; round < 20; round++)
        {
            data.AsSpan().Fill((byte)round);
            Assert.Equal(DiskStatus.Ok, driver.Write(4096, data, shift: round % 2));
            Assert.Equal(DiskStatus.Ok, driver.Flush());
            using FileStream file = new(stack.Path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite, bufferSize: 0);
            file.Position = 4096;
            byte[] there = new byte[8192];
            file.ReadExactly(there);
            Assert.Equal(data, there);
        }
    }

    [Theory]
    [MemberData(nameof(Stacks))]
    public void Dispose_waits_for_requests_in_flight_and_their_owner_hears_of_each(string name)
    {
        const int depth = 64;
        using Stack stack = new(name, depth * 4096);
        using NativeArray<byte> memory = new((depth * 4096) + 1, 4096);
        using NativeArray<IoVector> vectors = new(depth);
        memory.Span.Fill(0x3c);
        using (DiskDriver driver = stack.CreateDriver(depth))
        {
            for (int i = 0; i < depth; i++)
            {
                vectors.Span[i] = new IoVector(memory.AddressOf((i * 4096) + (i % 2)), 4096); // every other one past O_DIRECT's alignment
                driver[i].Prepare(BlockKind.Write, (ulong)i * 4096, 4096);
                driver[i].SetData(vectors.Span.Slice(i, 1));
                driver.Node.Submit(driver[i]);
            }

            Assert.Equal(depth, driver.Node.InFlight);
            driver.Node.Dispose();
            Assert.Equal((0, depth), (driver.Node.InFlight, driver.Ends));
            Assert.All(Enumerable.Range(0, depth), i => Assert.Equal(DiskStatus.Ok, driver.Status(i)));
        }

        using DiskDriver reader = new(stack.Backend);
        byte[] all = new byte[depth * 4096];
        Assert.Equal(DiskStatus.Ok, reader.Read(0, all));
        Assert.Equal(-1, all.AsSpan().IndexOfAnyExcept((byte)0x3c));
    }

    /// <summary>Closing waits for writes in flight; what they wrote is there, and nothing can be submitted any more.</summary>
    [Theory]
    [MemberData(nameof(Stacks))]
    public void Flush_and_close_waits_for_what_is_in_flight_and_can_be_asked_again(string name)
    {
        const int depth = 16;
        using Stack stack = new(name, depth * 4096);
        using NativeArray<byte> memory = new((depth * 4096) + 1, 4096);
        using NativeArray<IoVector> vectors = new(depth);
        memory.Span.Fill(0x3d);
        using (DiskDriver driver = stack.CreateDriver(depth))
        {
            for (int i = 0; i < depth; i++)
            {
                vectors.Span[i] = new IoVector(memory.AddressOf((i * 4096) + (i % 2)), 4096);
                driver[i].Prepare(BlockKind.Write, (ulong)i * 4096, 4096);
                driver[i].SetData(vectors.Span.Slice(i, 1));
                driver.Node.Submit(driver[i]);
            }

            Task closed = driver.Node.FlushAndCloseAsync().AsTask();
            Assert.False(closed.IsCompleted);
            driver.Node.FlushAndClose(driver.Loop);
            stack.CloseBelow(driver.Loop);
            Assert.True(closed.IsCompletedSuccessfully);
            Assert.Equal((0, depth), (driver.Node.InFlight, driver.Ends));
            Assert.All(Enumerable.Range(0, depth), i => Assert.Equal(DiskStatus.Ok, driver.Status(i)));
            Assert.Equal(0, driver.Loop.InFlight);
        }

        using DiskDriver reader = new(stack.Backend);
        byte[] all = new byte[depth * 4096];
        Assert.Equal(DiskStatus.Ok, reader.Read(0, all));
        Assert.Equal(-1, all.AsSpan().IndexOfAnyExcept((byte)0x3d));
    }

    /// <summary>
    /// The node flushes at its end when something was written after the last flush, and not otherwise; an error of it is told with the
    /// disk's name. Seen by a descriptor that became one of an eventfd, which takes no fdatasync.
    /// </summary>
    [Theory]
    [InlineData("buffered", true, false, true)]
    [InlineData("buffered", true, true, false)]
    [InlineData("buffered", false, false, false)]
    [InlineData("direct", true, false, true)]
    [InlineData("router over buffered", true, false, true)]
    public void A_node_flushes_at_its_end_what_was_not_flushed_and_tells_of_errors(string name, bool writes, bool flushes, bool expected)
    {
        using Stack stack = new(name, Size);
        using DiskDriver driver = stack.CreateDriver();
        if (writes)
        {
            Assert.Equal(DiskStatus.Ok, driver.Write(0, new byte[4096]));
        }

        if (flushes)
        {
            Assert.Equal(DiskStatus.Ok, driver.Flush());
        }

        using EventFd other = new();
        Assert.NotEqual(-1, Dup2((int)other.Handle.DangerousGetHandle(), ((RawFileBackend)stack.Backend).Buffered.Number));
        BlockException? error = Record.Exception(() =>
        {
            driver.Node.FlushAndClose(driver.Loop);
            stack.CloseBelow(driver.Loop);
        }) as BlockException;
        Assert.Equal(expected, error is not null);
        if (error is not null)
        {
            Assert.Equal((BlockErrorKind.Io, DiskStatus.IoError, stack.Path), (error.Kind, error.Status, error.Path));
            Assert.Contains(stack.Path, error.Message, StringComparison.Ordinal);
        }
    }

    [Theory]
    [MemberData(nameof(FrugalStacks))]
    public void Requests_allocate_nothing(string name)
    {
        using Stack stack = new(name, Size);
        using DiskDriver driver = stack.CreateDriver(32);
        using NativeArray<byte> memory = new(32 * 4096, 4096);
        using NativeArray<IoVector> vectors = new(32);
        // A path taken for the first time may load code once; a cost per request would show in every batch.
        long least = long.MaxValue;
        for (int batch = 0; batch < 5; batch++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 20; i++)
            {
                Round();
            }

            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
        }

        Assert.Equal(0, least);

        void Round()
        {
            for (int i = 0; i < 32; i++)
            {
                vectors.Span[i] = new IoVector(memory.AddressOf(i * 4096), 4096);
                BlockKind kind = (i % 8) switch
                {
                    0 => BlockKind.Flush,
                    1 => BlockKind.WriteZeroes,
                    2 => BlockKind.Discard,
                    3 or 4 => BlockKind.Write,
                    _ => BlockKind.Read
                };
                driver[i].Prepare(kind, (ulong)i * 4096, 4096, i == 3 ? BlockFlags.Fua : BlockFlags.None);
                driver[i].SetData(vectors.Span.Slice(i, 1));
                driver.Node.Submit(driver[i]);
            }

            driver.WaitForAll();
        }
    }

    [DllImport("libc", EntryPoint = "dup2")]
    private static extern int Dup2(int from, int to);
}
