using FsCheck;
using FsCheck.Fluent;
using Vmm.Interop;

namespace Vmm.Memory.Tests;

public sealed class PageMigrationTests
{
    private readonly FakeClock _clock = new();

    [Fact]
    public void What_is_elsewhere_goes_home_in_slices_and_what_is_not_there_stays_away()
    {
        FakePages pages = new([.. Enumerable.Range(0, 10_000).Select(i => i % 3 - 1)]); // absent, node 0, node 1
        List<double> progress = [];
        PageMigrationResult result = Run(
            pages, [1], options => options with { Slice = ByteSize.MiB(1) }, progress: (share, _) => progress.Add(share));
        Assert.Equal((false, 3333UL * 4096, 0UL), (result.Cancelled, result.Moved.Bytes, result.LeftBytes.Bytes));
        Assert.Equal([-1, 1], pages.Nodes.Distinct().Order());
        Assert.Equal(3334, pages.Nodes.Count(n => n < 0));
        Assert.InRange(pages.LargestMove, 1, 256);
        Assert.Equal(progress.Order(), progress);
        Assert.Equal((40, 1.0), (progress.Count, progress[^1]));
        Assert.Empty(_clock.Waits);
    }

    [Fact]
    public void A_rate_is_kept_and_a_low_one_makes_small_slices()
    {
        FakePages pages = new(new int[5120]); // 20 MiB
        PageMigrationResult result = Run(pages, [1], options => options with { BytesPerSecond = 4 << 20 });
        Assert.InRange(result.Elapsed.TotalSeconds, 4.8, 5.2);
        Assert.InRange(pages.LargestMove, 1, 105); // a tenth of a second
        Assert.All(_clock.Waits, wait => Assert.InRange(wait.TotalMilliseconds, 1, 150));
    }

    [Fact]
    public void Busy_pages_are_tried_again_and_told_of_when_they_never_go()
    {
        FakePages pages = new(new int[3000]);
        pages.Busy[5] = 2;
        pages.Busy[2900] = 99;
        PageMigrationResult result = Run(pages, [2]);
        Assert.Equal(2999UL * 4096, result.Moved.Bytes);
        Assert.Equal([new(0, new ByteSize(4096))], result.Left);
        Assert.Equal((0, 2), (pages.Nodes[2900], pages.Nodes[5]));
        Assert.Equal([100.0, 200.0, 400.0], _clock.Waits.Select(w => w.TotalMilliseconds));
    }

    [Fact]
    public void A_full_node_takes_what_fits_and_the_next_of_the_set_the_rest()
    {
        FakePages one = new(new int[100]), two = new(new int[100]);
        one.Room[1] = two.Room[1] = 60;
        PageMigrationResult alone = Run(one, [1]);
        Assert.Equal((60UL * 4096, 40UL * 4096), (alone.Moved.Bytes, alone.Left[0].Bytes));
        Assert.Equal(0UL, Run(two, [1, 2]).LeftBytes.Bytes);
        Assert.Equal((60, 40), (two.Nodes.Count(n => n == 1), two.Nodes.Count(n => n == 2)));
    }

    [Fact]
    public void Interleaving_spreads_page_by_page_and_leaves_what_is_on_one_of_the_nodes()
    {
        FakePages pages = new([.. Enumerable.Range(0, 1000).Select(i => i < 500 ? 0 : 2)]);
        new PageMigration([pages], [1, 2], interleave: true, Options()).Run(null, CancellationToken.None);
        Assert.Equal((250, 750), (pages.Nodes.Count(n => n == 1), pages.Nodes.Count(n => n == 2)));
    }

    [Fact]
    public void A_cancel_stops_between_two_slices_and_tells_what_was_done()
    {
        using CancellationTokenSource cancel = new();
        FakePages pages = new(new int[2048]);
        int moves = 0;
        pages.Moving = () =>
        {
            if (++moves == 3)
            {
                cancel.Cancel();
            }
        };
        PageMigrationResult result = Run(pages, [1], options => options with { Slice = ByteSize.MiB(1) }, cancel: cancel.Token);
        Assert.True(result.Cancelled);
        Assert.Equal(3UL << 20, result.Moved.Bytes);
        Assert.Equal(768, pages.Nodes.Count(n => n == 1));
    }

    [Fact]
    public void A_kernel_that_moves_nothing_says_why()
    {
        FakePages pages = new(new int[10]) { Errno = 19 };
        Assert.Equal(19, Assert.Throws<KernelException>(() => Run(pages, [7])).Errno);
    }

    [Fact]
    public void Whatever_the_placement_every_page_is_home_moved_or_told_of() =>
        Check.QuickThrowOnFailure(Prop.ForAll(ArbMap.Default.ArbFor<int[]>(), ArbMap.Default.ArbFor<(int, int, int)>(), (raw, wish) =>
        {
            int[] before = [.. raw.Select(n => (int)((uint)n % 5) - 1)];
            FakePages pages = new([.. before], pageSize: (wish.Item1 & 1) == 0 ? 4096UL : 2 << 20);
            int[] targets = (wish.Item2 & 1) == 0 ? [1] : [1, 3];
            pages.Room[1] = (int)((uint)wish.Item3 % 8);
            for (int i = 0; i < before.Length; i += 3)
            {
                pages.Busy[i] = i % 7;
            }

            PageMigrationResult result =
                new PageMigration([pages], targets, (wish.Item1 & 2) == 0, Options() with { Slice = new ByteSize(8192) }).Run(
                    null, CancellationToken.None);
            ulong home = (ulong)pages.Nodes.Where((n, i) => n != before[i]).Count() * pages.PageSize;
            ulong away = (ulong)pages.Nodes.Count(n => n >= 0 && !targets.Contains(n)) * pages.PageSize;
            return result.Moved == home && result.LeftBytes == away && !result.Cancelled
                && pages.Nodes.Where((n, i) => n != before[i]).All(targets.Contains)
                && pages.Nodes.Count(n => n < 0) == before.Count(n => n < 0);
        }));

    private PageMigrationResult Run(
        FakePages pages,
        int[] targets,
        Func<PageMigrationOptions, PageMigrationOptions>? how = null,
        Action<double, ByteSize>? progress = null,
        CancellationToken cancel = default) =>
        new PageMigration([pages], targets, interleave: false, how is null ? Options() : how(Options())).Run(progress, cancel);

    private PageMigrationOptions Options() => new() { Clock = _clock, Wait = _clock.Wait };
}
