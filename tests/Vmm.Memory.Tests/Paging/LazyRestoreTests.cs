using Vmm.Memory.Paging;
using Vmm.Testing;

namespace Vmm.Memory.Tests.Paging;

/// <summary>Memory that comes from saved pages when it is touched, with a real userfaultfd.</summary>
public sealed class LazyRestoreTests
{
    private const ulong MiB = 1 << 20, Bytes = 64 * MiB;

    [PagerFact]
    public void Pages_come_when_they_are_touched_in_any_order_and_as_they_were()
    {
        using PagedGuest guest = PagedGuest.Restored(new SavedPattern(Bytes), PagerParts.Unlimited);
        Random random = new(7);
        ulong[] pages = [.. Enumerable.Range(0, (int)(Bytes / 4096)).Select(page => (ulong)page)];
        random.Shuffle(pages);
        foreach (ulong page in pages[..4000])
        {
            guest.RequireSaved(page * 4096);
        }

        Assert.Equal(Bytes - (Bytes / 8), guest.Pager.Restoring!.Progress.TotalBytes); // every eighth chunk is a hole
        Assert.False(guest.Pager.Restoring.IsOver);
    }

    [PagerFact]
    public void The_rest_comes_by_itself_the_pages_are_let_go_of_and_the_kernel_serves_the_memory_alone()
    {
        SavedPattern saved = new(Bytes);
        using PagedGuest guest = PagedGuest.Restored(saved, PagerParts.Unlimited);
        using ManualResetEventSlim over = new();
        guest.Pager.Restoring!.Ended = _ => over.Set();
        guest.RequireSaved(3 * MiB);
        guest.Pager.BeginPrefetch();
        Assert.True(over.Wait(60_000), $"{guest.Pager.Restoring.Progress}");
        RestoreProgress progress = guest.Pager.Restoring.Progress;
        Assert.Equal((0UL, true, true), (progress.LeftBytes, guest.Pager.Restoring.IsOver, saved.IsDisposed));
        Assert.InRange(progress.AwaitedBytes, 4096UL, Bytes);
        long faults = (long)guest.Pager.Statistics.Faults;
        for (ulong at = 0; at < Bytes; at += 4096)
        {
            guest.RequireSaved(at);
        }

        Assert.Equal(faults, (long)guest.Pager.Statistics.Faults);

        // Transfers, a balloon and a save go on without the pager.
        PageLease lease = new(1);
        Assert.Equal(Acquired.Ready, guest.Acquire(lease, 5 * MiB, 8192, DmaAccess.Write));
        lease.Release();
        Assert.Equal(0, guest.Guest.Ram.GiveBack(guest.Memory.Region(new GuestAddress(0), new ByteSize(4096), 0), out ulong given));
        Assert.Equal(4096UL, given);
        Assert.True(guest.Guest.TryRead(new GuestAddress(0), out ulong zero));
        Assert.Equal(0UL, zero);
        byte[] page = new byte[4096];
        guest.Memory.CopyTo(4096, page);
        Assert.Equal(SavedPattern.Of(4096), BitConverter.ToUInt64(page));
        Assert.Null(guest.Failure);
    }

    [PagerTheory]
    [InlineData(true)]
    [InlineData(false)]
    public void With_a_resident_limit_pages_go_to_the_swap_store_and_all_are_there_in_the_end(bool isFull)
    {
        SavedPattern saved = new(Bytes);
        using PagedGuest guest = PagedGuest.Restored(saved, new ByteSize(16 * MiB));
        guest.Store.IsFull = isFull;
        guest.Pager.BeginPrefetch();
        if (isFull)
        {
            Assert.False(SpinWait.SpinUntil(() => guest.Pager.Restoring!.IsOver, 500));
            guest.RequireSaved(Bytes - 4096); // the guest gets its pages all the same
            guest.Store.IsFull = false;
        }

        Assert.True(SpinWait.SpinUntil(() => guest.Pager.Restoring!.IsOver, 60_000), $"{guest.Pager.Restoring!.Progress}");
        Assert.True(saved.IsDisposed);
        Assert.True(SpinWait.SpinUntil(() => guest.Pager.Statistics.ResidentBytes <= 16 * MiB, 60_000), $"{guest.Pager.Statistics}");
        Assert.True(guest.Pager.Statistics.SwappedBytes > 32 * MiB, $"{guest.Pager.Statistics}");
        for (ulong at = 0; at < Bytes; at += 4096)
        {
            guest.RequireSaved(at);
        }

        Assert.Null(guest.Failure);
    }

    [PagerFact]
    public void A_save_reads_what_did_not_come_yet_and_leaves_it_there()
    {
        SavedPattern saved = new(Bytes);
        using PagedGuest guest = PagedGuest.Restored(saved, PagerParts.Unlimited);
        Assert.True(guest.Guest.TryWrite(new GuestAddress(9 * MiB), 77UL));
        byte[] some = new byte[16 * 4096];
        for (ulong at = 0; at < Bytes; at += (ulong)some.Length)
        {
            guest.Memory.CopyTo(at, some);
            for (ulong page = 0; page < 16; page++)
            {
                ulong where = at + (page * 4096), expected = where == 9 * MiB ? 77 : SavedPattern.Of(where);
                Assert.Equal(expected, BitConverter.ToUInt64(some, (int)page * 4096));
            }
        }

        Assert.InRange(guest.Pager.Statistics.ResidentBytes, 4096UL, MiB);
        Assert.InRange(saved.Reads, 1, (int)(Bytes / MiB) + 1); // each chunk once, whatever the piece
    }

    [PagerFact]
    public void A_transfer_waits_for_pages_that_did_not_come_and_a_page_that_is_given_back_never_comes()
    {
        using PagedGuest guest = PagedGuest.Restored(new SavedPattern(Bytes), PagerParts.Unlimited);
        PageLease lease = new(1);
        using Waiter ready = new();
        Assert.Equal(Acquired.Pending, guest.Acquire(lease, 20 * MiB, 256 * 4096, DmaAccess.Read, ready));
        Assert.True(ready.Came.Wait(10_000));
        Assert.Equal(Acquired.Ready, guest.Acquire(lease, 20 * MiB, 256 * 4096, DmaAccess.Read, ready));
        for (int page = 0; page < 256; page++)
        {
            Assert.Equal(SavedPattern.Of((20 * MiB) + ((ulong)page * 4096)), BitConverter.ToUInt64(lease.Bytes(0)[(page * 4096)..]));
        }

        lease.Release();
        ulong left = guest.Pager.Restoring!.Progress.LeftBytes;
        GuestRegion given = guest.Memory.Region(new GuestAddress(30 * MiB), new ByteSize(MiB), 30 * MiB);
        Assert.Equal(0, guest.Guest.Ram.GiveBack(given, out ulong bytes));
        Assert.Equal((MiB, left - MiB), (bytes, guest.Pager.Restoring.Progress.LeftBytes));
        Assert.True(guest.Guest.TryRead(new GuestAddress((30 * MiB) + 8192), out ulong zero));
        Assert.Equal(0UL, zero);
        Assert.Equal(0UL, guest.Pager.Statistics.ForeignFaults);
    }

    [PagerFact]
    public void Transfers_discards_and_a_save_beside_the_prefetch_and_its_end_find_what_was_saved()
    {
        for (int round = 0; round < 8; round++)
        {
            using PagedGuest guest = PagedGuest.Restored(new SavedPattern(Bytes), PagerParts.Unlimited);
            guest.Pager.BeginPrefetch();
            Parallel.For(0, 3, worker =>
            {
                Random random = new((round * 3) + worker);
                PageLease lease = new(1);
                using Waiter ready = new();
                while (!guest.Pager.Restoring!.IsOver)
                {
                    ulong at = (ulong)random.Next((int)(Bytes / 4096) - 64) * 4096;
                    while (guest.Acquire(lease, at, 64 * 4096, DmaAccess.Read, ready) == Acquired.Pending)
                    {
                        Assert.True(ready.Came.Wait(10_000));
                        ready.Came.Reset();
                    }

                    Assert.Equal(SavedPattern.Of(at + (63 * 4096)), BitConverter.ToUInt64(lease.Bytes(0)[(63 * 4096)..]));
                    lease.Release();
                    guest.RequireSaved((ulong)random.Next((int)(Bytes / 4096)) * 4096);
                }
            });
            Assert.Null(guest.Failure);
        }
    }

    [PagerTheory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_chunk_that_cannot_be_had_ends_the_vm_with_its_name_and_nobody_gets_its_pages(bool touched)
    {
        using PagedGuest guest = PagedGuest.Restored(new SavedPattern(Bytes) { Broken = 40 }, PagerParts.Unlimited);
        guest.RequireSaved(39 * MiB);
        PageLease lease = new(1);
        using Waiter ready = new();
        if (touched)
        {
            Assert.Equal(Acquired.Pending, guest.Acquire(lease, 40 * MiB, 4096, DmaAccess.Read, ready));
        }
        else
        {
            guest.Pager.BeginPrefetch();
        }

        Assert.True(SpinWait.SpinUntil(() => guest.Failure is not null, 30_000));
        Assert.Equal("chunk 40 is damaged", guest.Failure);
        Assert.False(ready.Came.IsSet);
        Assert.False(guest.Pager.Restoring!.IsOver);
    }

    [PagerFact]
    public void It_ends_amid_the_prefetch_and_before_it()
    {
        SavedPattern slow = new(Bytes) { Delay = TimeSpan.FromMilliseconds(20) }, never = new(Bytes);
        using (PagedGuest guest = PagedGuest.Restored(slow, PagerParts.Unlimited))
        {
            guest.Pager.BeginPrefetch();
            Assert.True(SpinWait.SpinUntil(() => slow.Reads > 3, 30_000));
        }

        using (PagedGuest.Restored(never, PagerParts.Unlimited))
        {
            // It never ran.
        }

        Assert.Equal((true, true), (slow.IsDisposed, never.IsDisposed));
        Assert.True(slow.Reads < (int)(Bytes / MiB), "it ended, and did not go on to the end");
    }

    private sealed class Waiter : IPageWaiter, IDisposable
    {
        internal ManualResetEventSlim Came { get; } = new();

        public void PagesReady(PageLease lease) => Came.Set();

        public void Dispose() => Came.Dispose();
    }
}
