using System.Diagnostics;
using System.Globalization;
using Vmm.Interop;
using Vmm.Memory.Paging;
using Vmm.Testing;

namespace Vmm.Memory.Tests;

/// <summary>Files that are changed, cut, full or not what they should be: an error that says so, never wrong pages.</summary>
public sealed class SwapStoreFaultTests
{
    private const int Page = SwapTestFile.Page;
    private const ulong MiB = 1 << 20;

    [Fact]
    public void Every_byte_that_is_changed_is_noticed()
    {
        using SwapTestFile file = new(MiB, "/dev/shm"); // a disk would be written 8192 times
        byte[] noise = new byte[Page], content = file.Content();
        new Random(1).NextBytes(noise);
        SwapSlot slot = file.Write(noise)[0];
        int used = (int)file.Store.Statistics.FileBytes;
        Assert.Equal(2 * SwapStore.BlockBytes, used);
        content = file.Content();
        for (int at = 0; at < used; at++)
        {
            byte[] one = [(byte)(content[at] ^ (1 << (at % 8)))];
            RandomAccess.Write(file.Raw, one, at);
            SwapStoreException refused = Assert.Throws<SwapStoreException>(() => file.ReadOne(slot));
            Assert.Contains("8192 bytes at 0", refused.Message, StringComparison.Ordinal);
            Assert.Contains("the file was changed", refused.Message, StringComparison.Ordinal);
            Assert.False(refused.IsFull);
            RandomAccess.Write(file.Raw, content.AsSpan(at, 1), at);
        }

        Assert.Equal(noise, file.ReadOne(slot));
    }

    [Fact]
    public void Clusters_that_changed_places_or_came_from_the_past_are_noticed()
    {
        using SwapTestFile file = new(MiB);
        byte[] page = new byte[Page];
        SwapSlot first = file.Write(page)[0], second = file.Write(page)[0];
        byte[] content = file.Content();
        RandomAccess.Write(file.Raw, content.AsSpan(0, SwapStore.BlockBytes), SwapStore.BlockBytes);
        RandomAccess.Write(file.Raw, content.AsSpan(SwapStore.BlockBytes, SwapStore.BlockBytes), 0);
        Assert.Throws<SwapStoreException>(() => file.ReadOne(first));
        Assert.Throws<SwapStoreException>(() => file.ReadOne(second));

        file.Store.Free(first);
        SwapSlot third = file.Write(page)[0]; // at the place of the first, which is put back
        Assert.Equal(page, file.ReadOne(third));
        RandomAccess.Write(file.Raw, content.AsSpan(0, SwapStore.BlockBytes), 0);
        Assert.Throws<SwapStoreException>(() => file.ReadOne(third));
    }

    [Fact]
    public void A_file_that_was_cut_is_noticed_and_can_be_written_again()
    {
        using SwapTestFile file = new(MiB);
        byte[] noise = new byte[16 * Page];
        new Random(1).NextBytes(noise);
        SwapSlot[] slots = file.Write(noise);
        using FileStream same = new(file.Raw, FileAccess.ReadWrite, bufferSize: 0);
        foreach (int length in (int[])[68 * 1024 - 1, 65536, 4096, 100, 0])
        {
            same.SetLength(length);
            SwapStoreException refused = Assert.Throws<SwapStoreException>(() => file.ReadOne(slots[2]));
            Assert.Contains("ends after", refused.Message, StringComparison.Ordinal);
        }

        SwapSlot again = file.Write(noise)[4];
        Assert.Equal(noise.AsSpan(4 * Page, Page), file.ReadOne(again).AsSpan());
    }

    [Fact]
    public void A_file_that_may_only_be_read_keeps_nothing()
    {
        string name = Path.GetTempFileName();
        try
        {
            using SwapStore store = new(BlockFile.Open(name, writable: false, direct: false), MiB);
            SwapStoreException refused = Assert.Throws<SwapStoreException>(() => store.Write(new byte[Page], new SwapSlot[1]));
            Assert.False(refused.IsFull);
            Assert.Contains("pwrite", refused.Message, StringComparison.Ordinal);
            Assert.Equal((0ul, 0ul), (store.Statistics.Pages, store.Statistics.FileBytes));
        }
        finally
        {
            File.Delete(name);
        }
    }

    [Fact]
    public void A_descriptor_that_is_no_file_is_refused()
    {
        using EventFd wrong = new();
        Assert.Throws<SwapStoreException>(() => new SwapStore(wrong.Handle, MiB));
    }

    [LoopFact]
    public void A_disk_that_is_smaller_than_the_limit_is_full_and_nothing_is_lost()
    {
        using LoopDevice disk = new(256 * 1024);
        using SwapStore store = new(BlockFile.Open(disk.Path, writable: true, direct: true), MiB);
        AssertFullLater(store);
    }

    [LoopTheory]
    [InlineData("256k")]
    [InlineData("300k")]
    [InlineData("320k")]
    public void A_full_file_system_is_full_and_nothing_is_lost(string size)
    {
        string folder = Directory.CreateTempSubdirectory("vmm-swap").FullName;
        Run("mount", "-t", "tmpfs", "-o", $"size={size}", "vmm-swap-test", folder);
        try
        {
            using SwapStore store = new(SwapFile.Create(folder, MiB, out _), MiB);
            AssertFullLater(store);
        }
        finally
        {
            Run("umount", folder);
            Directory.Delete(folder);
        }
    }

    [Fact]
    public void A_folder_that_cannot_have_a_swap_file_is_named_with_the_reason()
    {
        foreach (string folder in (string[])["/nowhere/at/all", "/proc", "/dev/null"])
        {
            SwapStoreException refused = Assert.Throws<SwapStoreException>(() => SwapFile.Create(folder, MiB, out _));
            Assert.Contains(folder, refused.Message, StringComparison.Ordinal);
        }

        SwapStoreException none = Assert.Throws<SwapStoreException>(() => SwapFile.Create("/proc", MiB, out _));
        Assert.Contains("O_TMPFILE", none.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_file_has_no_name_and_one_owner()
    {
        using FileDescriptorHandle file = SwapFile.Create("/dev/shm", MiB, out _);
        string link = string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{file.Number}");
        Assert.EndsWith(" (deleted)", File.ResolveLinkTarget(link, returnFinalTarget: false)!.FullName, StringComparison.Ordinal);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(link));
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void No_damage_of_the_file_gives_a_wrong_page()
    {
        const int Pages = 64;
        Random random = new(1616);
        using SwapTestFile file = new(MiB, "/dev/shm");
        Dictionary<SwapSlot, byte[]> written = [];
        while (written.Count < Pages)
        {
            byte[] pages = SwapTestFile.Pages(random, random.Next(1, 17));
            SwapSlot[] slots = file.Write(pages);
            for (int i = 0; i < slots.Length; i++)
            {
                written.Add(slots[i], pages[(i * Page)..((i + 1) * Page)]);
            }
        }

        SwapSlot[] all = [.. written.Keys];
        byte[] sound = file.Content(), read = new byte[16 * Page];
        SwapSlot[] found = new SwapSlot[16];
        int used = (int)file.Store.Statistics.FileBytes, noticed = 0;
        int rounds = int.TryParse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS"), out int wanted) ? wanted : 5_000;
        for (int round = 0; round < rounds; round++)
        {
            Damage(random, file, sound, used);
            try
            {
                int count = file.Store.Read(all[random.Next(all.Length)], read, found);
                for (int i = 0; i < count; i++)
                {
                    Assert.True(read.AsSpan(i * Page, Page).SequenceEqual(written[found[i]]));
                }
            }
            catch (SwapStoreException)
            {
                noticed++;
            }

            RandomAccess.Write(file.Raw, sound.AsSpan(0, used), 0);
        }

        Assert.InRange(noticed, rounds / 20, rounds);
        Assert.All(all, slot => Assert.Equal(written[slot], file.ReadOne(slot)));
    }

    private static void Damage(Random random, SwapTestFile file, byte[] sound, int used)
    {
        int from = random.Next(used), length = Math.Min(random.Next(1, 3 * Page), used - from);
        switch (random.Next(3))
        {
            case 0: // noise
                byte[] noise = new byte[length];
                random.NextBytes(noise);
                RandomAccess.Write(file.Raw, noise, from);
                break;
            case 1: // what lies elsewhere, often whole blocks
                int block = random.Next(2) == 0 ? 1 : SwapStore.BlockBytes;
                int source = random.Next(used) / block * block, target = from / block * block;
                int moved = Math.Min(Math.Max(length, block), used - Math.Max(source, target));
                RandomAccess.Write(file.Raw, sound.AsSpan(source, moved), target);
                break;
            default:
                RandomAccess.SetLength(file.Raw, from);
                break;
        }
    }

    private static void AssertFullLater(SwapStore store)
    {
        byte[] noise = new byte[16 * Page];
        Random random = new(1);
        List<(SwapSlot Slot, byte[] Page)> kept = [];
        SwapSlot[] slots = new SwapSlot[16];
        while (true)
        {
            random.NextBytes(noise);
            try
            {
                store.Write(noise, slots);
            }
            catch (SwapStoreException full)
            {
                Assert.True(full.IsFull, full.Message);
                Assert.NotNull(full.InnerException); // the kernel said so, not the limit
                break;
            }

            kept.AddRange(slots.Select((slot, i) => (slot, noise[(i * Page)..((i + 1) * Page)])));
        }

        Assert.InRange(kept.Count, 32, 80);
        Assert.Equal((ulong)kept.Count, store.Statistics.Pages);
        Assert.Equal((ulong)(kept.Count / 16 * 17 * SwapStore.BlockBytes), store.Statistics.FileBytes);
        byte[] read = new byte[Page];
        foreach ((SwapSlot slot, byte[] page) in kept)
        {
            Assert.Equal(1, store.Read(slot, read, slots));
            Assert.True(page.AsSpan().SequenceEqual(read));
            store.Free(slot);
        }

        store.Write(noise, slots); // there is room again
        Assert.Equal(16, store.Read(slots[0], noise, new SwapSlot[16]));
    }

    private static void Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(program, arguments);
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
    }
}
