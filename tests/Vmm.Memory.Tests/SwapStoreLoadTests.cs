using System.Collections.Concurrent;
using Vmm.Memory.Paging;

namespace Vmm.Memory.Tests;

/// <summary>Random writes, reads and frees from several threads, against what each of them wrote.</summary>
public sealed class SwapStoreLoadTests
{
    private const int Page = SwapTestFile.Page;
    private const ulong Limit = 8 << 20;

    [Theory]
    [InlineData(1, null)]
    [InlineData(4, null)]
    [InlineData(4, "/dev/shm")]
    public void Every_page_comes_back_as_it_was_and_all_room_comes_back(int threads, string? folder)
    {
        using SwapTestFile file = new(Limit, folder);
        ConcurrentQueue<Exception> failures = [];
        Thread[] workers = [.. Enumerable.Range(0, threads).Select(i => new Thread(() =>
        {
            try
            {
                new Model(file.Store, 100 + i).Run(1500);
            }
#pragma warning disable CA1031 // told by the test's thread
            catch (Exception failure)
#pragma warning restore CA1031
            {
                failures.Enqueue(failure);
            }
        }))];
        Array.ForEach(workers, worker => worker.Start());
        Array.ForEach(workers, worker => worker.Join());
        Assert.Empty(failures);
        SwapStatistics end = file.Store.Statistics;
        Assert.Equal((0ul, 0ul), (end.Pages, end.FileBytes));
        Assert.True(end.PagesWritten > 0 && end.PagesRead > 0);
        byte[] noise = new byte[16 * Page];
        new Random(1).NextBytes(noise);
        for (ulong i = 0; i < Limit / SwapStore.LeastBytes; i++)
        {
            file.Write(noise); // the room came back whole
        }
    }

    /// <summary>One thread's pages: slot and what was written.</summary>
    private sealed class Model(SwapStore store, int seed)
    {
        private readonly Random _random = new(seed);
        private readonly Dictionary<SwapSlot, byte[]> _pages = [];
        private readonly List<SwapSlot> _slots = [];
        private readonly byte[] _read = new byte[16 * Page];
        private readonly SwapSlot[] _found = new SwapSlot[16];

        internal void Run(int steps)
        {
            for (int step = 0; step < steps; step++)
            {
                int what = _random.Next(10);
                if (what < 4 || _slots.Count == 0)
                {
                    Write();
                }
                else if (what < 7)
                {
                    Read(_slots[_random.Next(_slots.Count)]);
                }
                else
                {
                    for (int i = _random.Next(16); i >= 0 && _slots.Count > 0; i--)
                    {
                        Free(_random.Next(_slots.Count));
                    }
                }
            }

            while (_slots.Count > 0)
            {
                Read(_slots[^1]);
                Free(_slots.Count - 1);
            }
        }

        private void Write()
        {
            int count = _random.Next(1, 17);
            byte[] pages = SwapTestFile.Pages(_random, count);
            SwapSlot[] slots = new SwapSlot[count];
            try
            {
                store.Write(pages, slots);
            }
            catch (SwapStoreException full) when (full.IsFull)
            {
                for (int i = 0; i < 32 && _slots.Count > 0; i++)
                {
                    Free(_random.Next(_slots.Count));
                }

                return;
            }

            for (int i = 0; i < count; i++)
            {
                _pages.Add(slots[i], pages[(i * Page)..((i + 1) * Page)]);
                _slots.Add(slots[i]);
            }
        }

        private void Read(SwapSlot slot)
        {
            int most = _random.Next(1, 17), count = store.Read(slot, _read.AsSpan(0, most * Page), _found);
            Assert.Equal(slot, _found[0]);
            Assert.InRange(count, 1, most);
            Assert.Equal(count, _found.Take(count).Distinct().Count());
            for (int i = 0; i < count; i++)
            {
                Assert.True(_read.AsSpan(i * Page, Page).SequenceEqual(_pages[_found[i]])); // no slot that is freed, no wrong page
            }
        }

        private void Free(int index)
        {
            SwapSlot slot = _slots[index];
            _slots[index] = _slots[^1];
            _slots.RemoveAt(_slots.Count - 1);
            store.Free(slot);
            _pages.Remove(slot);
        }
    }
}
