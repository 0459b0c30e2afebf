using Vmm.Memory.Paging;
using Vmm.Testing;

namespace Vmm.Memory.Tests.Paging;

/// <summary>Others who work on pages that are paged: re-homing, a save, the log of written pages. With a real userfaultfd.</summary>
public sealed class PagedOwnersTests
{
    private const ulong MiB = 1 << 20, Bytes = 128 * MiB;

    [PagerFact]
    public void Pages_that_are_moved_to_a_node_are_all_that_are_in_memory()
    {
        using PagedGuest guest = Filled();
        int[] nodes = new int[Bytes / 4096];
        guest.Memory.Locate(0, nodes); // staged pages are mapped by nobody, and the kernel looks at mappings
        PagerStatistics now = guest.Pager.Statistics;
        ulong[] there = [.. Enumerable.Range(0, nodes.Length).Where(page => nodes[page] >= 0).Select(page => (ulong)page)];
        Assert.Equal((now.ResidentBytes / 4096, 0UL), ((ulong)there.Length, now.StagedBytes));

        Assert.Equal(0, guest.Memory.Move(there, 0));
        Assert.Equal(now.ResidentBytes, guest.Pager.Statistics.ResidentBytes);
        Check(guest);
    }

    [PagerFact]
    public void Memory_keeps_its_content_while_it_is_moved_and_paged()
    {
        using PagedGuest guest = Filled();
        using CancellationTokenSource over = new();
        Thread mover = new(() =>
        {
            PageMigration migration = new([guest.Memory], [0], interleave: false, new PageMigrationOptions());
            ulong[] all = [.. Enumerable.Range(0, (int)(Bytes / 4096)).Select(page => (ulong)page)];
            while (!over.IsCancellationRequested)
            {
                migration.Run(null, over.Token);
                guest.Memory.Move(all, 0);
            }
        });
        mover.Start();
        for (int round = 0; round < 3; round++)
        {
            Check(guest);
        }

        over.Cancel();
        mover.Join();
        Assert.Equal(0UL, guest.Pager.Statistics.PinnedBytes);
    }

    [PagerFact]
    public void A_save_leaves_pages_where_they_are()
    {
        using PagedGuest guest = Filled();
        PagerStatistics before = guest.Pager.Statistics;
        byte[] some = new byte[64 * 4096];
        for (ulong at = 0; at < Bytes; at += (ulong)some.Length)
        {
            guest.Memory.CopyTo(at, some);
            for (ulong page = 0; page < 64; page++)
            {
                Assert.Equal(Pattern(at + (page * 4096)), BitConverter.ToUInt64(some, (int)page * 4096));
            }
        }

        PagerStatistics after = guest.Pager.Statistics;
        Assert.Equal((before.PagesIn, before.ResidentBytes, before.StagedBytes), (after.PagesIn, after.ResidentBytes, after.StagedBytes));
        Assert.Throws<ArgumentOutOfRangeException>(() => guest.Memory.CopyTo(Bytes, some));
        Check(guest);
    }

    [PagerFact]
    public void The_log_of_written_pages_has_those_that_devices_wrote_wherever_they_are_now()
    {
        using PagedGuest guest = Filled();
        guest.Guest.Ram.StartTrackingWrites();
        Check(guest); // pages come and go: nobody wrote them
        ulong[] bitmap = new ulong[Bytes / 4096 / 64];
        guest.Guest.Ram.CollectWrittenPages(new GuestAddress(0), Bytes / 4096, bitmap);
        Assert.All(bitmap, word => Assert.Equal(0UL, word));

        Assert.True(guest.Guest.TryWrite(new GuestAddress(5 * 4096), Pattern(5 * 4096)));
        Check(guest); // it goes out, and comes back
        guest.Guest.Ram.CollectWrittenPages(new GuestAddress(0), Bytes / 4096, bitmap);
        Assert.Equal(1UL << 5, bitmap[0]);
        Assert.All(bitmap[1..], word => Assert.Equal(0UL, word));
    }

    private static PagedGuest Filled()
    {
        PagedGuest guest = new(Bytes, 64 * MiB);
        for (ulong at = 0; at < Bytes; at += 4096)
        {
            Assert.True(guest.Guest.TryWrite(new GuestAddress(at), Pattern(at)));
        }

        // Nothing goes out any more: what the tests count stays so.
        ulong rest = (64 * MiB) - (ulong)(PageEvicter.SlackOf((long)(64 * MiB / 4096)) * 4096);
        Assert.True(SpinWait.SpinUntil(() => guest.Pager.Statistics.ResidentBytes <= rest, 30_000), $"{guest.Pager.Statistics}");
        for (ulong before = ulong.MaxValue; guest.Pager.Statistics.StagedBytes != before;)
        {
            before = guest.Pager.Statistics.StagedBytes;
            Thread.Sleep(50);
        }

        return guest;
    }

    private static void Check(PagedGuest guest)
    {
        for (ulong at = 0; at < Bytes; at += 4096)
        {
            Assert.True(guest.Guest.TryRead(new GuestAddress(at), out ulong value));
            Assert.Equal(Pattern(at), value);
        }

        Assert.Null(guest.Failure);
    }

    private static ulong Pattern(ulong at) => (at * 0x9E3779B97F4A7C15) | 1;
}
