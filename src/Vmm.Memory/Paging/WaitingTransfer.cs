namespace Vmm.Memory.Paging;

/// <summary>A transfer that waits: for pages, which it has pinned, or until others use less, without a pin. Used again.</summary>
internal sealed class WaitingTransfer
{
    private readonly List<PinnedPages> _ranges = [];

    /// <summary>Its lease.</summary>
    internal PageLease? Lease { get; private set; }

    /// <summary>Who is told.</summary>
    internal IPageWaiter? Waiter { get; private set; }

    /// <summary>Pages that it has pinned.</summary>
    internal long Pages { get; private set; }

    /// <summary>Whose pins they are.</summary>
    internal PinLane? Lane { get; private set; }

    /// <summary>Its ranges.</summary>
    internal IReadOnlyList<PinnedPages> Ranges => _ranges;

    /// <summary>It waits until others use less.</summary>
    internal bool IsForBudget { get; private set; }

    /// <summary>A thread brings its pages.</summary>
    internal bool IsServed { get; set; }

    /// <summary>When it was told, in milliseconds of <see cref="Environment.TickCount64"/>; 0 before.</summary>
    internal long ToldAt { get; set; }

    /// <summary>Begins to wait.</summary>
    internal void Begin(PageLease lease, IPageWaiter waiter, PinLane lane, bool isForBudget)
    {
        (Lease, Waiter, Lane, IsForBudget, IsServed, ToldAt, Pages) = (lease, waiter, lane, isForBudget, false, 0, 0);
        _ranges.Clear();
    }

    /// <summary>Notes pages that it has pinned.</summary>
    internal void Add(PinnedPages range)
    {
        _ranges.Add(range);
        Pages += (long)range.Count;
    }

    /// <summary>Ends.</summary>
    internal void Clear()
    {
        (Lease, Waiter, Lane, Pages) = (null, null, null, 0);
        _ranges.Clear();
    }
}
