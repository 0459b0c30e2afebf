using Vmm.Memory.Paging;
using Vmm.Testing;

namespace Vmm.Memory.Tests.Paging;

/// <summary>The pager with a real userfaultfd: threads of the test are its guest and its devices.</summary>
public sealed class MemoryPagerTests
{
    private const ulong MiB = 1 << 20;

    [PagerFact]
    public void A_guest_with_twice_the_memory_that_is_resident_reads_what_it_wrote()
    {
        using PagedGuest guest = new(128 * MiB, 64 * MiB);
        Fill(guest, 0, 128 * MiB);
        PagerStatistics full = guest.Pager.Statistics;
        Assert.True(full.ResidentBytes <= full.LimitBytes, $"{full}");
        Assert.True(full.SwappedBytes >= 60 * MiB, $"{full}");
        Assert.Null(guest.Failure);

        Assert.Equal(0UL, FirstWrong(guest, 0, 128 * MiB));
        PagerStatistics read = guest.Pager.Statistics;
        Assert.True(read.PagesIn > 0 && read.ResidentBytes <= read.LimitBytes, $"{read}");
        Assert.Null(guest.Failure);
    }

    [PagerFact]
    public void Pages_of_zeros_cost_no_write()
    {
        using PagedGuest guest = new(128 * MiB, 64 * MiB);
        for (ulong at = 0; at < 128 * MiB; at += 4096)
        {
            Assert.True(guest.Guest.TryWrite(new GuestAddress(at), 0UL));
        }

        PagerStatistics now = guest.Pager.Statistics;
        Assert.True(now.ZeroPages > 10_000 && now.PagesOut == 0, $"{now}");
    }

    [PagerFact]
    public void Pages_that_nobody_wrote_since_they_came_back_go_out_without_a_write()
    {
        using PagedGuest guest = new(128 * MiB, 64 * MiB);
        Fill(guest, 0, 128 * MiB);
        Assert.Equal(0UL, FirstWrong(guest, 0, 128 * MiB));
        PagerStatistics first = guest.Pager.Statistics;
        Assert.Equal(0UL, FirstWrong(guest, 0, 128 * MiB));
        Assert.Equal(0UL, FirstWrong(guest, 0, 128 * MiB));
        PagerStatistics read = guest.Pager.Statistics;
        Assert.True(read.UnchangedPages - first.UnchangedPages > 10_000, $"{read}");
        Assert.True(read.PagesOut - first.PagesOut < 10_000, $"{read}"); // those that were not written out before

        // Half of the pages are written, by a guest and by a device: all are as they should be.
        PageLease lease = new(1);
        using Told told = new();
        for (ulong at = 0; at < 128 * MiB; at += 4 * 4096)
        {
            Assert.True(guest.Guest.TryWrite(new GuestAddress(at), ~Pattern(at)));
            WriteByDevice(guest, at + 4096, ~Pattern(at + 4096), lease, told);
        }

        for (int round = 0; round < 2; round++)
        {
            for (ulong at = 0; at < 128 * MiB; at += 4096)
            {
                Assert.True(guest.Guest.TryRead(new GuestAddress(at), out ulong value));
                Assert.Equal(at / 4096 % 4 < 2 ? ~Pattern(at) : Pattern(at), value);
            }
        }

        Assert.Null(guest.Failure);
    }

    [PagerFact]
    public void Slots_of_pages_that_are_in_memory_go_when_the_store_is_full()
    {
        using PagedGuest guest = new(128 * MiB, 64 * MiB);
        Fill(guest, 0, 128 * MiB);
        Assert.Equal(0UL, FirstWrong(guest, 0, 128 * MiB));
        guest.Store.MostPages = guest.Store.Held; // full from now on
        Fill(guest, 0, 128 * MiB);
        Assert.Equal(0UL, FirstWrong(guest, 0, 128 * MiB));
        Assert.True(SpinWait.SpinUntil(() => guest.Pager.Statistics is { Stopped: null, ResidentBytes: <= 64 * MiB }, 30_000),
            $"{guest.Pager.Statistics}");
        Assert.Null(guest.Failure);
    }

    [PagerFact]
    public void A_lease_finds_its_pages_or_is_told_when_they_are_there_and_they_stay()
    {
        using PagedGuest guest = new(256 * MiB, 64 * MiB);
        Fill(guest, 0, 256 * MiB);
        PageLease lease = new(4);
        Told told = new();
        GuestRange range = new(new GuestAddress(3 * MiB), 1 << 20);
        Assert.Equal(Acquired.Pending, guest.Guest.Dma.TryAcquire(range, DmaAccess.Read, lease, told));
        Assert.True(told.Event.Wait(TimeSpan.FromSeconds(30)));
        Assert.Equal(Acquired.Ready, guest.Guest.Dma.TryAcquire(lease, DmaAccess.Read, told));
        Assert.Equal(MiB, guest.Pager.Statistics.PinnedBytes);

        Fill(guest, 64 * MiB, 256 * MiB); // everything else goes round
        for (ulong at = 0; at < MiB; at += 4096)
        {
            Assert.True(lease.TryRead(at, out ulong value));
            Assert.Equal(Pattern((3 * MiB) + at), value);
        }

        lease.Release();
        Assert.Equal(0UL, guest.Pager.Statistics.PinnedBytes);
        Assert.Null(guest.Failure);
    }

    [PagerFact]
    public void Pages_that_are_given_back_read_as_zeros_wherever_they_were()
    {
        using PagedGuest guest = new(128 * MiB, 64 * MiB);
        Fill(guest, 0, 128 * MiB);
        Assert.Equal(0, guest.Guest.Discard(new GuestAddress(0), 128 * MiB, out ulong given));
        Assert.Equal(128 * MiB, given);
        Assert.Equal(0, guest.Store.Held);
        Assert.Equal(0UL, guest.Pager.Statistics.ResidentBytes);
        for (ulong at = 0; at < 128 * MiB; at += 4096)
        {
            Assert.True(guest.Guest.TryRead(new GuestAddress(at), out ulong value));
            Assert.Equal(0UL, value);
        }
    }

    [PagerFact]
    public void A_save_reads_all_memory_and_holes_stay_holes()
    {
        using PagedGuest guest = new(128 * MiB, 64 * MiB);
        Fill(guest, 0, 100 * MiB);
        Assert.True(guest.Memory.TryFindData(0, out ulong start, out ulong end));
        Assert.Equal((0UL, 100 * MiB), (start, end));
        Assert.False(guest.Memory.TryFindData(end, out _, out _));
        byte[] page = new byte[4096];
        for (ulong at = 0; at < end; at += 4096)
        {
            guest.Memory.CopyTo(at, page);
            Assert.Equal(Pattern(at), BitConverter.ToUInt64(page));
        }
    }

    [PagerFact]
    public void The_limit_changes_while_threads_read_and_write()
    {
        using PagedGuest guest = new(192 * MiB, 64 * MiB);
        Fill(guest, 0, 192 * MiB);
        using CancellationTokenSource over = new();
        List<string> wrong = [];
        Thread[] threads = [.. Enumerable.Range(0, 3).Select(n => new Thread(() => Walk(guest, n, wrong, over.Token)))];
        Array.ForEach(threads, thread => thread.Start());
        Random random = new(7);
        for (int i = 0; i < 40; i++)
        {
            guest.Pager.SetResidentLimit(new ByteSize((64 + (ulong)random.Next(100)) * MiB));
            Thread.Sleep(20);
        }

        over.Cancel();
        Array.ForEach(threads, thread => thread.Join());
        Assert.Empty(wrong);
        Assert.Null(guest.Failure);
        guest.Pager.SetResidentLimit(new ByteSize(64 * MiB));
        Assert.True(SpinWait.SpinUntil(() => guest.Pager.Statistics.ResidentBytes <= 64 * MiB, 30_000), $"{guest.Pager.Statistics}");
        Assert.Equal(0UL, guest.Pager.Statistics.PinnedBytes);
    }

    [PagerFact]
    public void A_full_store_stops_evicting_and_nothing_else()
    {
        using PagedGuest guest = new(128 * MiB, 64 * MiB);
        guest.Store.IsFull = true;
        Fill(guest, 0, 128 * MiB);
        Assert.True(SpinWait.SpinUntil(() => guest.Pager.Statistics.Stopped is not null, 30_000), $"{guest.Pager.Statistics}");
        Assert.True(SpinWait.SpinUntil(() => guest.Pager.Statistics.ResidentBytes == 128 * MiB, 30_000), $"{guest.Pager.Statistics}");
        Assert.Equal(0UL, FirstWrong(guest, 0, 128 * MiB));

        guest.Store.IsFull = false;
        Assert.True(SpinWait.SpinUntil(() => guest.Pager.Statistics.ResidentBytes <= 64 * MiB, 30_000), $"{guest.Pager.Statistics}");
        Assert.True(SpinWait.SpinUntil(() => guest.Pager.Statistics.Stopped is null, 30_000), $"{guest.Pager.Statistics}");
        Assert.Equal(0UL, FirstWrong(guest, 0, 128 * MiB));
    }

    [PagerFact]
    public void A_slow_store_delays_who_waits_for_it_and_nobody_else()
    {
        using PagedGuest guest = new(96 * MiB, 64 * MiB);
        Fill(guest, 0, 96 * MiB);
        guest.Store.Delay = TimeSpan.FromMilliseconds(50);
        PageLease missing = new(1), there = new(1);
        using Told told = new(), none = new();
        ulong away = 0;
        while (guest.Guest.Dma.TryAcquire(new GuestRange(new GuestAddress(away), 4096), DmaAccess.Read, missing, told) == Acquired.Ready)
        {
            missing.Release();
            away += 4096;
        }

        // What was written last is there, and stays so while others use it.
        int ready = 0;
        for (ulong at = 95 * MiB; at < 96 * MiB; at += 4096)
        {
            GuestRange range = new(new GuestAddress(at), 4096);
            if (guest.Guest.Dma.TryAcquire(range, DmaAccess.Read, there, none) == Acquired.Ready)
            {
                ready += told.Event.IsSet ? 0 : 1;
                there.Release();
            }
            else
            {
                there = new PageLease(1); // the other waits: it was staged
            }
        }

        Assert.True(ready > 0, "all waited for the slow one");
        Assert.True(told.Event.Wait(TimeSpan.FromSeconds(30)), $"{guest.Failure} {guest.Pager.Statistics}");
        guest.Store.Delay = TimeSpan.FromMilliseconds(1);
        Assert.Equal(0UL, FirstWrong(guest, 0, 96 * MiB));
        Assert.Null(guest.Failure);
    }

    [PagerFact]
    public void A_store_that_fails_for_a_while_loses_nothing_and_is_tried_again()
    {
        using PagedGuest guest = new(96 * MiB, 64 * MiB);
        guest.Store.FailingWrites = 2;
        Fill(guest, 0, 96 * MiB);
        Assert.True(SpinWait.SpinUntil(() => guest.Store.FailingWrites == 0, 30_000), $"{guest.Pager.Statistics}");
        Assert.True(SpinWait.SpinUntil(() => guest.Pager.Statistics is { Stopped: null, ResidentBytes: <= 64 * MiB }, 30_000),
            $"{guest.Pager.Statistics}");
        Assert.Equal(0UL, FirstWrong(guest, 0, 96 * MiB));
        Assert.Null(guest.Failure);
    }

    [PagerFact]
    public void A_store_that_cannot_give_a_page_back_ends_the_guest_with_the_reason()
    {
        using PagedGuest guest = new(128 * MiB, 64 * MiB);
        Fill(guest, 0, 128 * MiB);
        guest.Store.IsBroken = true;
        Thread reader = new(() => FirstWrong(guest, 0, 128 * MiB)) { IsBackground = true };
        reader.Start();
        Assert.True(SpinWait.SpinUntil(() => guest.Failure is not null, 30_000));
        Assert.Contains("page 7 was changed", guest.Failure, StringComparison.Ordinal);
        guest.Pager.Dispose();
        Assert.True(reader.Join(30_000), "a thread still waits for a page");
    }

    [PagerFact]
    public void A_limit_that_is_too_low_is_refused()
    {
        Assert.Throws<ArgumentException>(() => new PagedGuest(128 * MiB, 15 * MiB));
        using PagedGuest guest = new(128 * MiB, 64 * MiB);
        ArgumentOutOfRangeException refused =
            Assert.Throws<ArgumentOutOfRangeException>(() => guest.Pager.SetResidentLimit(new ByteSize(15 * MiB)));
        Assert.Contains("is the least now", refused.Message, StringComparison.Ordinal);
    }

    private static ulong Pattern(ulong at) => (at * 0x9E3779B97F4A7C15) | 1;

    private static void Fill(PagedGuest guest, ulong from, ulong to)
    {
        for (ulong at = from; at < to; at += 4096)
        {
            Assert.True(guest.Guest.TryWrite(new GuestAddress(at), Pattern(at)));
        }
    }

    private static void WriteByDevice(PagedGuest guest, ulong at, ulong value, PageLease lease, Told told)
    {
        while (guest.Guest.Dma.TryAcquire(new GuestRange(new GuestAddress(at), 4096), DmaAccess.Write, lease, told) != Acquired.Ready)
        {
            Assert.True(told.Event.Wait(TimeSpan.FromSeconds(30)));
            told.Event.Reset();
        }

        Assert.True(lease.TryWrite(0, value));
        lease.Release();
    }

    // One more than the address, so that 0 is none.
    private static ulong FirstWrong(PagedGuest guest, ulong from, ulong to)
    {
        for (ulong at = from; at < to; at += 4096)
        {
            if (!guest.Guest.TryRead(new GuestAddress(at), out ulong value) || value != Pattern(at))
            {
                return at + 1;
            }
        }

        return 0;
    }

    // Each walker has every third page: nobody else writes it.
    private static void Walk(PagedGuest guest, int walker, List<string> wrong, CancellationToken over)
    {
        Random random = new(walker);
        PageLease lease = new(1);
        using Told told = new();
        Dictionary<ulong, ulong> expected = [];
        while (!over.IsCancellationRequested)
        {
            ulong at = (((ulong)random.Next((int)(192 * MiB / 4096) / 3) * 3) + (ulong)walker) * 4096;
            ulong before = expected.GetValueOrDefault(at, Pattern(at)), next = (ulong)random.NextInt64();
            Acquired answer;
            while ((answer = guest.Guest.Dma.TryAcquire(new GuestRange(new GuestAddress(at), 4096), DmaAccess.Write, lease, told))
                == Acquired.Pending)
            {
                told.Event.Wait(CancellationToken.None);
                told.Event.Reset();
            }

            if (answer != Acquired.Ready || !lease.TryRead(0, out ulong value) || value != before)
            {
                lock (wrong)
                {
                    wrong.Add($"{answer} at {at:x}");
                }
            }

            lease.TryWrite(0, next);
            lease.Release();
            expected[at] = next;
            if (random.Next(8) == 0)
            {
                guest.Guest.Discard(new GuestAddress(at), 4096, out ulong given);
                expected[at] = given == 4096 ? 0 : next;
            }
        }
    }

    private sealed class Told : IPageWaiter, IDisposable
    {
        internal ManualResetEventSlim Event { get; } = new();

        public void PagesReady(PageLease lease) => Event.Set();

        public void Dispose() => Event.Dispose();
    }
}
