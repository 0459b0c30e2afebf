using System.Collections.Concurrent;
using System.Text;
using Vmm.Interop;
using Vmm.Memory.Paging;

namespace Vmm.Memory.Tests;

public sealed class SwapStoreTests
{
    private const int Page = SwapTestFile.Page;
    private const ulong MiB = 1 << 20;

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(15)]
    [InlineData(16)]
    public void Pages_come_back_the_asked_one_first_and_then_the_others_that_are_not_freed(int count)
    {
        using SwapTestFile file = new(4 * MiB);
        byte[] pages = SwapTestFile.Pages(new Random(count), count);
        SwapSlot[] slots = file.Write(pages);
        Assert.All(slots, slot => Assert.False(slot.IsNone));
        int asked = count - 1, freed = count > 2 ? 1 : -1;
        if (freed >= 0)
        {
            file.Store.Free(slots[freed]);
        }

        byte[] read = new byte[16 * Page];
        SwapSlot[] found = new SwapSlot[16];
        int[] expected = [asked, .. Enumerable.Range(0, count).Where(i => i != asked && i != freed)];
        Assert.Equal(expected.Length, file.Store.Read(slots[asked], read, found));
        for (int i = 0; i < expected.Length; i++)
        {
            Assert.Equal(slots[expected[i]], found[i]);
            Assert.Equal(pages.AsSpan(expected[i] * Page, Page), read.AsSpan(i * Page, Page));
        }
    }

    [Fact]
    public void Room_that_nothing_uses_goes_back_to_the_file_system_piece_by_piece()
    {
        using SwapTestFile file = new(64 * MiB);
        byte[] noise = new byte[16 * Page];
        Random random = new(3);
        List<SwapSlot> slots = [];
        for (int i = 0; i < 500; i++)
        {
            random.NextBytes(noise);
            slots.AddRange(file.Write(noise));
        }

        ulong full = DataBytes(file);
        Assert.InRange(full, 500UL * 17 * Page, 64 * MiB);
        Assert.Equal(0UL, file.Store.Trim(4 * MiB)); // all of it is in use
        slots[..^16].ForEach(file.Store.Free);
        ulong given = file.Store.Trim(4 * MiB), more;
        Assert.InRange(given, 4 * MiB, (4 * MiB) + (63 * Page));
        while ((more = file.Store.Trim(4 * MiB)) > 0)
        {
            given += more;
        }

        Assert.InRange(DataBytes(file), 17UL * Page, 5 * MiB);
        Assert.Equal(full - given, DataBytes(file));
        Assert.Equal(noise[(3 * Page)..(4 * Page)], file.ReadOne(slots[^13]));
        random.NextBytes(noise);
        Assert.Equal(noise[..Page], file.ReadOne(file.Write(noise)[0]));
    }

    [Fact]
    public void No_more_are_read_than_there_is_room_for()
    {
        using SwapTestFile file = new(MiB);
        SwapSlot[] slots = file.Write(SwapTestFile.Pages(new Random(1), 16));
        byte[] read = new byte[3 * Page];
        Assert.Equal(3, file.Store.Read(slots[5], read, new SwapSlot[16]));
        Assert.Equal(2, file.Store.Read(slots[5], read, new SwapSlot[2]));
        Assert.Throws<ArgumentOutOfRangeException>(() => file.Store.Read(slots[5], read.AsSpan(0, 100), new SwapSlot[2]));
    }

    [Fact]
    public void A_slot_ends_with_Free_and_is_not_another_page_afterwards()
    {
        using SwapTestFile file = new(MiB);
        SwapSlot[] old = file.Write(SwapTestFile.Pages(new Random(1), 2));
        file.Store.Free(old[0]);
        Assert.Throws<ArgumentException>(() => file.Store.Free(old[0]));
        Assert.Throws<ArgumentException>(() => file.ReadOne(old[0]));
        file.Store.Free(old[1]);
        SwapSlot[] later = file.Write(SwapTestFile.Pages(new Random(2), 2)); // the same number, the same place
        Assert.Throws<ArgumentException>(() => file.ReadOne(old[1]));
        Assert.Throws<ArgumentException>(() => file.Store.Free(old[1]));
        Assert.Throws<ArgumentException>(() => file.Store.Free(default));
        Assert.Throws<ArgumentException>(() => file.Store.Free(new SwapSlot(ulong.MaxValue)));
        Assert.Equal(SwapTestFile.Pages(new Random(2), 2).AsSpan(Page), file.ReadOne(later[1]).AsSpan());
    }

    [Theory]
    [InlineData(0)]
    [InlineData(100)]
    [InlineData(4097)]
    [InlineData(17 * 4096)]
    public void What_is_not_1_to_16_pages_is_refused(int bytes)
    {
        using SwapTestFile file = new(MiB);
        Assert.Throws<ArgumentException>(() => file.Store.Write(new byte[bytes], new SwapSlot[17]));
        Assert.ThrowsAny<ArgumentException>(() => file.Store.Write(new byte[2 * Page], new SwapSlot[1]));
        Assert.Equal(0ul, file.Store.Statistics.FileBytes);
    }

    [Fact]
    public void A_full_store_says_so_and_goes_on_with_what_is_freed()
    {
        using SwapTestFile file = new(MiB);
        Random random = new(1);
        byte[] noise = new byte[16 * Page];
        random.NextBytes(noise);
        for (int round = 0; round < 3; round++)
        {
            List<SwapSlot[]> written = Fill(file, noise);
            Assert.Equal(256 / 17, written.Count);
            SwapSlot[] some = written[7];
            foreach (SwapSlot slot in some.Skip(1))
            {
                file.Store.Free(slot);
            }

            Assert.Throws<SwapStoreException>(() => file.Write(noise)); // one of its pages is still there
            file.Store.Free(some[0]);
            written[7] = file.Write(noise);
            foreach (SwapSlot slot in written.SelectMany(slots => slots))
            {
                file.Store.Free(slot);
            }

            Assert.Equal(0ul, file.Store.Statistics.FileBytes);
            Assert.Equal(0ul, file.Store.Statistics.Pages);
        }
    }

    [Fact]
    public void Statistics_count_pages_and_bytes()
    {
        using SwapTestFile file = new(MiB + 100);
        byte[] alike = new byte[16 * Page];
        SwapSlot[] slots = file.Write(alike);
        file.ReadOne(slots[3]);
        Assert.Equal(new SwapStatistics(16, 4096, MiB, 16, 1, 4096, 4096), file.Store.Statistics);
    }

    [Fact]
    public void Plain_text_is_not_in_the_file_and_the_same_page_never_looks_the_same()
    {
        using SwapTestFile file = new(MiB, "/dev/shm");
        byte[] noise = new byte[Page], secret = Encoding.ASCII.GetBytes("correct horse battery staple");
        new Random(3).NextBytes(noise); // kept as it is, not compressed
        secret.CopyTo(noise, 2000);
        HashSet<string> seen = [];
        for (int i = 0; i < 500; i++)
        {
            SwapSlot slot = file.Write(noise)[0];
            byte[] content = file.Content();
            Assert.Equal(-1, content.AsSpan().IndexOf(secret));
            Assert.Equal(-1, content.AsSpan().IndexOf(noise.AsSpan(100, 16)));
            // With one nonce twice, one of the places would hold the same bytes again: same page, same key.
            Assert.True(seen.Add(Convert.ToHexString(content, 100, 32)));
            Assert.True(seen.Add(Convert.ToHexString(content, 0, 16)));
            file.Store.Free(slot); // so the next one lies there, too
        }
    }

    [Fact]
    public void Each_store_has_a_key_of_its_own()
    {
        HashSet<string> seen = [];
        for (int i = 0; i < 20; i++)
        {
            using SwapTestFile file = new(MiB);
            file.Write(new byte[Page]);
            Assert.True(seen.Add(Convert.ToHexString(file.Content(), 0, 64)));
        }
    }

    [Fact]
    public void Nothing_is_allocated_per_call()
    {
        using SwapTestFile file = new(4 * MiB);
        byte[] pages = SwapTestFile.Pages(new Random(5), 16), read = new byte[16 * Page];
        SwapSlot[] slots = new SwapSlot[16], found = new SwapSlot[16];
        long allocated = -1;
        for (int round = 0; round < 6 && allocated != 0; round++) // the runtime makes things once, whenever it compiles a method anew
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 200; i++)
            {
                file.Store.Write(pages, slots);
                _ = file.Store.Read(slots[3], read, found);
                _ = file.Store.Statistics;
                foreach (SwapSlot slot in slots)
                {
                    file.Store.Free(slot);
                }
            }

            allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        }

        Assert.Equal(0, allocated);
    }

    [Fact]
    public void Dispose_waits_for_those_who_write_and_read_and_everything_fails_afterwards()
    {
        using SwapTestFile file = new(16 * MiB);
        byte[] pages = SwapTestFile.Pages(new Random(5), 4);
        SwapSlot[] kept = file.Write(pages);
        ConcurrentQueue<Exception> ends = [];
        using CountdownEvent running = new(6);
        Thread[] threads = [.. Enumerable.Range(0, 6)
            .Select(i => new Thread(() => UseUntilItEnds(file.Store, i, kept[1], pages, running, ends)))];
        Array.ForEach(threads, thread => thread.Start());
        running.Wait();
        file.Store.Dispose();
        file.Store.Dispose();
        Array.ForEach(threads, thread => thread.Join());
        Assert.Equal(6, ends.Count);
        Assert.All(ends, end => Assert.IsType<ObjectDisposedException>(end));
        Assert.Throws<ObjectDisposedException>(() => file.Store.Free(kept[0]));
        Assert.Throws<ObjectDisposedException>(() => file.ReadOne(kept[0]));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(SwapStore.LeastBytes - 1)]
    [InlineData(SwapStore.MostBytes + 1)]
    public void A_limit_that_no_store_can_have_is_refused(ulong limit) =>
        Assert.Throws<ArgumentOutOfRangeException>(() => SwapFile.Create(Path.GetTempPath(), limit, out _));

    private static void UseUntilItEnds(
        SwapStore store, int number, SwapSlot kept, byte[] pages, CountdownEvent running, ConcurrentQueue<Exception> ends)
    {
        try
        {
            byte[] read = new byte[Page];
            SwapSlot[] slots = new SwapSlot[4], found = new SwapSlot[1];
            for (int round = 0; ; round++)
            {
                if (number % 2 == 0)
                {
                    _ = store.Read(kept, read, found);
                    Assert.Equal(pages.AsSpan(Page, Page), read.AsSpan());
                }
                else
                {
                    store.Write(pages, slots);
                    Array.ForEach(slots, store.Free);
                }

                if (round == 3)
                {
                    running.Signal();
                }
            }
        }
#pragma warning disable CA1031 // whatever ended it is looked at
        catch (Exception end)
#pragma warning restore CA1031
        {
            ends.Enqueue(end);
        }
    }

    private static List<SwapSlot[]> Fill(SwapTestFile file, byte[] pages)
    {
        List<SwapSlot[]> written = [];
        while (true)
        {
            try
            {
                written.Add(file.Write(pages));
            }
            catch (SwapStoreException full)
            {
                Assert.True(full.IsFull);
                return written;
            }
        }
    }

    private static ulong DataBytes(SwapTestFile file)
    {
        ulong sum = 0;
        for (ulong at = 0; DataExtents.TryFindNext(file.Raw, at, out ulong start, out ulong end); at = end)
        {
            sum += end - start;
        }

        return sum;
    }
}
