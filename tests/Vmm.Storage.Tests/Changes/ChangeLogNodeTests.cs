using Vmm.Storage.Changes;

namespace Vmm.Storage.Tests;

/// <summary>Queues that write through a change log, and what the log names then.</summary>
public sealed class ChangeLogNodeTests
{
    private const ulong Disk = 24ul << 30; // three times the areas that are hot at a time

    /// <summary>Without a power cut the log is exact, whatever order requests of several queues come in.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public void Each_cut_names_the_extents_that_were_written_and_no_others(int queues)
    {
        using LoggedDisk disk = new(new NullDiskBackend(Disk));
        for (int round = 0; round < 4; round++)
        {
            HashSet<ulong> written = [];
            Thread[] threads = [.. Enumerable.Range(0, queues).Select(q => new Thread(() => Write(disk, (round * 10) + q, written)))];
            Array.ForEach(threads, thread => thread.Start());
            Array.ForEach(threads, thread => thread.Join());
            disk.Log.Cut();
            List<ulong> named = LogFile.Extents(disk.File.ReadPending());
            Assert.False(disk.File.ReadPending().IsAll);
            Assert.Equal(written.Order(), named);
            disk.File.Forget();
        }
    }

    [Fact]
    public void Reads_flushes_and_what_is_outside_mark_nothing()
    {
        using LoggedDisk disk = new(new NullDiskBackend(Disk));
        using DiskDriver driver = new(disk);
        Assert.Equal(DiskStatus.Ok, driver.Read(0, new byte[512]));
        Assert.Equal(DiskStatus.Ok, driver.Flush());
        Assert.Equal(DiskStatus.IoError, driver.Write(Disk, new byte[512]));
        disk.Log.Cut();
        Assert.Empty(disk.File.ReadPending().Ranges);
        Assert.False(disk.File.ReadPending().IsAll);
    }

    private static void Write(LoggedDisk disk, int seed, HashSet<ulong> written)
    {
        const int depth = 8;
        Random random = new(seed);
        HashSet<ulong> mine = [];
        using DiskDriver driver = new(disk, depth);
        for (int batch = 0; batch < 150; batch++)
        {
            for (int i = 0; i < depth; i++)
            {
                BlockKind kind = random.Next(2) == 0 ? BlockKind.WriteZeroes : BlockKind.Discard;
                uint length = random.Next(300) == 0 ? 256u << 20 : (uint)random.Next(1, 200) * 512;
                ulong offset = (ulong)random.NextInt64((long)(Disk - length) / 512) * 512;
                driver[i].Prepare(kind, offset, length);
                driver.Node.Submit(driver[i]);
                for (ulong extent = offset / ChangeSet.ExtentBytes; extent <= (offset + length - 1) / ChangeSet.ExtentBytes; extent++)
                {
                    mine.Add(extent);
                }
            }

            driver.WaitForAll();
        }

        Assert.Equal(150 * depth, driver.Ends);
        lock (written)
        {
            written.UnionWith(mine);
        }
    }
}
