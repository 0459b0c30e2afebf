using System.Collections.Concurrent;
using Vmm.Contracts.Control;
using Vmm.Memory;
using Vmm.Memory.Paging;

namespace Vmm.Worker.Tests;

/// <summary>What a worker says of its pager, and passes on to it. The pager is played.</summary>
public sealed class HostedPagingTests
{
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(5);

    [Fact]
    public void A_machine_without_a_resident_limit_has_nothing_to_say_and_takes_no_limit()
    {
        using HostedPaging paging = new(() => null);
        Assert.Null(paging.Info);
        paging.OnStopped(_ => throw new InvalidOperationException("told of a pager that there is not"));
        RequestException refused = Assert.Throws<RequestException>(() => paging.SetLimit(64 << 20, null));
        Assert.Equal(ControlCodes.NoResidentLimit, refused.Code);
        Assert.Contains("resident: 25%", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void What_the_pager_counts_is_told_field_by_field()
    {
        FakePager pager = new() { Statistics = Numbered("full") };
        using HostedPaging paging = new(() => pager);
        Assert.Equal(
            new PagingInfo(1, 20 << 20, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 16, 17, 18, "full", 13, 14, 19),
            paging.Info);
    }

    [Fact]
    public void A_limit_is_passed_on_and_one_that_is_too_low_is_refused_with_the_least()
    {
        FakePager pager = new() { Statistics = Numbered(null) };
        using HostedPaging paging = new(() => pager);
        paging.SetLimit(32 << 20, null);
        Assert.Equal((null, null), (paging.Info!.Reason, paging.Info.Since));
        Assert.Equal(new ByteSize(32 << 20), pager.ResidentLimit);
        RequestException refused = Assert.Throws<RequestException>(() => paging.SetLimit((20 << 20) - 4096, null));
        Assert.Equal(ControlCodes.MemoryImpossible, refused.Code);
        Assert.Contains("is below 20MiB, the least", refused.Message, StringComparison.Ordinal);
        Assert.Equal(new ByteSize(32 << 20), pager.ResidentLimit);
    }

    [Fact]
    public void It_is_told_once_when_pages_go_out_no_more_and_once_when_they_do_again()
    {
        FakePager pager = new() { Statistics = Numbered(null) };
        BlockingCollection<string?> told = [];
        using HostedPaging paging = new(() => pager, s_look);
        paging.OnStopped(told.Add);
        pager.Look(times: 3);
        Assert.Empty(told);

        pager.Statistics = Numbered("the swap store is full");
        Assert.Equal("the swap store is full", told.Take());
        pager.Statistics = Numbered("it is still full, and says it in other words");
        pager.Look(times: 3);
        Assert.Empty(told);

        pager.Statistics = Numbered(null);
        Assert.Null(told.Take());
        pager.Look(times: 3);
        Assert.Empty(told);
    }

    [Fact]
    public void Nothing_is_looked_at_when_the_machine_is_over()
    {
        FakePager pager = new() { Statistics = Numbered("full") };
        BlockingCollection<string?> told = [];
        HostedPaging paging = new(() => pager, s_look);
        paging.OnStopped(told.Add);
        Assert.Equal("full", told.Take());
        paging.Dispose();
        Thread.Sleep(10 * s_look); // a look that had begun ends
        int looks = pager.Looks;
        Thread.Sleep(20 * s_look);
        Assert.Equal(looks, pager.Looks);
        paging.Dispose();
    }

    private static PagerStatistics Numbered(string? stopped) => new()
    {
        LimitBytes = 1,
        ResidentBytes = 2,
        StagedBytes = 3,
        SwappedBytes = 4,
        PinnedBytes = 5,
        PinnedPeakBytes = 6,
        Hits = 7,
        Misses = 8,
        BudgetWaits = 9,
        RefusedEvictions = 10,
        Faults = 11,
        StagedFaults = 12,
        CopyFaults = 13,
        ForeignFaults = 14,
        PagesOut = 15,
        PagesIn = 16,
        ZeroPages = 17,
        SwapFileBytes = 18,
        UnchangedPages = 19,
        Stopped = stopped,
    };

    private sealed class FakePager : IMemoryPager
    {
        private PagerStatistics? _statistics;
        private int _looks;

        public ByteSize ResidentLimit { get; private set; } = new(64 << 20);

        public ByteSize MinimumLimit => new(20 << 20);

        internal int Looks => Volatile.Read(ref _looks);

        public PagerStatistics Statistics
        {
            get
            {
                Interlocked.Increment(ref _looks);
                return Volatile.Read(ref _statistics)!;
            }

            set => Volatile.Write(ref _statistics, value);
        }

        public void SetResidentLimit(ByteSize limit)
        {
            ResidentLimit = limit >= MinimumLimit ? limit : throw new ArgumentOutOfRangeException(nameof(limit));
        }

        internal void Look(int times)
        {
            int end = Looks + times;
            Assert.True(SpinWait.SpinUntil(() => Looks >= end, 30_000), "nobody looks");
        }
    }
}
