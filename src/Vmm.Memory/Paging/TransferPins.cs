using System.Runtime.CompilerServices;
using Vmm.Interop;

namespace Vmm.Memory.Paging;

/// <summary>
/// The filter's side of the pager: a transfer pins its pages, or waits. One that waits for pages keeps them pinned from the first look on,
/// so that each page comes once. All transfers together pin a share of the resident limit at most; one alone may have more, up to half of
/// it. Any thread; a transfer that finds its pages does no locked operation (<see cref="PinTable"/>) and allocates nothing.
/// </summary>
internal sealed class TransferPins(ResidencyCache pages, PageMover mover, Action work) : IPageSource
{
    private const long ForgetAfterMilliseconds = 5000;
    private const int Budgets = 8, Batches = 64; // an eighth of the limit may be pinned; a thread tells each 64th of that
    private readonly PinTable _lanes = pages.Lanes;
    private readonly Lock _gate = new();
    private readonly List<WaitingTransfer> _waiting = [];
    private readonly Stack<WaitingTransfer> _spare = [];
    private volatile bool _halted;
    private int _waits; // entries of _waiting
    private int _forBudget; // those that wait until others use less
    private long _peak, _rings, _misses, _budgetWaits, _limit = long.MaxValue, _budget = long.MaxValue / Budgets;

    /// <summary>Pages that may be resident: an eighth may be pinned.</summary>
    internal long Limit
    {
        get => Volatile.Read(ref _limit);
        set
        {
            Volatile.Write(ref _limit, value);
            Volatile.Write(ref _budget, value / Budgets);
            _lanes.Batch = (int)Math.Clamp(value / Budgets / Batches, 1, 64);
        }
    }

    /// <summary>Pages pinned by transfers and rings.</summary>
    internal long Pinned => _lanes.InUse + Volatile.Read(ref _rings);

    /// <summary>Transfers and rings that wait, or were told and have not come.</summary>
    internal int Waits => Volatile.Read(ref _waits);

    /// <summary>Most that transfers pinned at once.</summary>
    internal long Peak => Volatile.Read(ref _peak);

    /// <summary>Transfers that found their pages.</summary>
    internal long Hits => _lanes.Hits;

    /// <summary>Transfers that waited for pages.</summary>
    internal long Misses => Volatile.Read(ref _misses);

    /// <summary>Transfers that waited until others used less.</summary>
    internal long BudgetWaits => Volatile.Read(ref _budgetWaits);

    /// <inheritdoc/>
    public Pinned TryPin(PageLease lease, IPageWaiter waiter)
    {
        if (Volatile.Read(ref _waits) > 0 && TryTakeOver(lease))
        {
            return Memory.Pinned.Yes;
        }

        PinLane lane = _lanes.Mine;
        Span<PinnedPages> room = lease.PinRoom();
        bool here = !_halted;
        int ranges = 0;
        long count = 0;
        foreach (ref readonly IoVector vector in lease.Vectors)
        {
            if (TryFind(vector, out ulong page, out ulong length))
            {
                pages.Pin(lane, page, length);
                here &= pages.AreResident(page, length);
                room[ranges++] = new PinnedPages(page, length);
                count += (long)length;
            }
        }

        lease.NotePinned(lane, ranges, count);
        long now = _lanes.Use(lane, count);
        bool fits = now <= Volatile.Read(ref _budget) || _lanes.InUse == count;
        if (here && fits)
        {
            PinTable.CountHit(lane);
            if (now > Volatile.Read(ref _peak))
            {
                NotePeak(now);
            }

            return Memory.Pinned.Yes;
        }

        if (count > Limit / 2)
        {
            Unpin(lease);
            return Memory.Pinned.Never;
        }

        Wait(lease, waiter, forBudget: !fits);
        return Memory.Pinned.Later;
    }

    /// <inheritdoc/>
    public void Unpin(PageLease lease)
    {
        if (lease.PinnedIn is { } lane)
        {
            bool isOwn = PinTable.IsOwn(lane);
            foreach (PinnedPages range in lease.PinnedRanges)
            {
                pages.Unpin(lane, range.First, range.Count, isOwn);
            }

            lease.NoteUnpinned();
            Lower(lane, lease.PinnedCount, isOwn);
        }
    }

    /// <inheritdoc/>
    public bool AreHere(GuestRange range, nint address) =>
        !TryFind(new IoVector(address, range.Length), out ulong page, out ulong count) || pages.AreResident(page, count);

    /// <inheritdoc/>
    public void PinRing(nint address, ulong length)
    {
        if (TryFind(new IoVector(address, (nuint)length), out ulong page, out ulong count))
        {
            pages.Pin(_lanes.Shared, page, count);
            Interlocked.Add(ref _rings, (long)count);
            using RingWait wait = new();
            while (!_halted && !pages.AreResident(page, count))
            {
                WaitingTransfer entry = Take();
                lock (_gate)
                {
                    entry.Begin(RingWait.NoLease, wait, _lanes.Shared, isForBudget: false);
                    entry.Add(new PinnedPages(page, count));
                    Enter(entry);
                }

                work();
                wait.Ready.Wait();
                wait.Ready.Reset();
            }
        }
    }

    /// <inheritdoc/>
    public void UnpinRing(nint address, ulong length)
    {
        if (TryFind(new IoVector(address, (nuint)length), out ulong page, out ulong count))
        {
            pages.Unpin(_lanes.Shared, page, count, isOwn: false);
            Interlocked.Add(ref _rings, -(long)count);
        }
    }

    /// <summary>From now on every transfer waits for ever: the machine ends. A thread that waits for a ring goes on, to its end.</summary>
    internal void Halt()
    {
        _halted = true;
        lock (_gate)
        {
            foreach (WaitingTransfer entry in _waiting)
            {
                (entry.Waiter as RingWait)?.Ready.Set();
            }
        }
    }

    /// <inheritdoc/>
    public ulong Discard(nint address, ulong length)
    {
        ulong done = 0;
        if (pages.TryFind(address, out ulong page))
        {
            for (ulong end = page + (length / ByteSize.BytesPerPage); page < end;)
            {
                int count = (int)Math.Min(ResidencyCache.GroupPages - (page % ResidencyCache.GroupPages), end - page);
                done += (ulong)System.Numerics.BitOperations.PopCount(mover.Discard(page, count)) * ByteSize.BytesPerPage;
                page += (ulong)count;
            }
        }

        return done;
    }

    /// <summary>The next transfer that waits for pages and that nobody serves; null when there is none.</summary>
    internal WaitingTransfer? TakeWork()
    {
        lock (_gate)
        {
            foreach (WaitingTransfer entry in _waiting)
            {
                if (!entry.IsServed && !entry.IsForBudget)
                {
                    entry.IsServed = true;
                    return entry;
                }
            }
        }

        return null;
    }

    /// <summary>All pages of a transfer are there: who waits is told.</summary>
    internal void Tell(WaitingTransfer entry)
    {
        PageLease lease = entry.Lease!;
        IPageWaiter waiter = entry.Waiter!;
        lock (_gate)
        {
            if (waiter is RingWait)
            {
                Leave(entry); // the ring has its own pins
            }
            else
            {
                entry.ToldAt = Environment.TickCount64;
            }
        }

        waiter.PagesReady(lease);
    }

    /// <summary>
    /// Lets those who waited for others try again, and takes the pins of transfers that were told long ago and never came: their device was
    /// reset.
    /// </summary>
    internal void Sweep()
    {
        if (Volatile.Read(ref _waits) == 0)
        {
            return;
        }

        List<(PageLease Lease, IPageWaiter Waiter)> told = [];
        if (Volatile.Read(ref _forBudget) > 0)
        {
            _lanes.Fence(); // who ended a use and did not see them waiting is seen here
        }

        lock (_gate)
        {
            long old = Environment.TickCount64 - ForgetAfterMilliseconds, inUse = _lanes.InUse;
            bool hasRoom = inUse == 0 || inUse < Volatile.Read(ref _budget);
            for (int i = _waiting.Count - 1; i >= 0; i--)
            {
                WaitingTransfer entry = _waiting[i];
                if (entry.IsForBudget && hasRoom)
                {
                    told.Insert(0, (entry.Lease!, entry.Waiter!));
                    Leave(entry);
                }
                else if (entry.ToldAt != 0 && entry.ToldAt < old)
                {
                    Unpin(entry);
                    Leave(entry);
                }
            }
        }

        foreach ((PageLease lease, IPageWaiter waiter) in told)
        {
            waiter.PagesReady(lease);
        }
    }

    private void Wait(PageLease lease, IPageWaiter waiter, bool forBudget)
    {
        Interlocked.Increment(ref forBudget ? ref _budgetWaits : ref _misses);
        WaitingTransfer entry = Take();
        if (forBudget)
        {
            Unpin(lease);
        }

        lock (_gate)
        {
            entry.Begin(lease, waiter, lease.PinnedIn!, forBudget);
            foreach (PinnedPages range in lease.PinnedRanges)
            {
                entry.Add(range);
            }

            Enter(entry);
        }

        work();
    }

    // A transfer whose pages were brought: their pins are its own now.
    private bool TryTakeOver(PageLease lease)
    {
        lock (_gate)
        {
            foreach (WaitingTransfer entry in _waiting)
            {
                if (ReferenceEquals(entry.Lease, lease) && entry.ToldAt != 0)
                {
                    bool same = TryFillAs(entry, lease);
                    if (!same)
                    {
                        Unpin(entry); // the device was reset, and uses its lease for another request
                    }

                    Leave(entry);
                    return same;
                }
            }
        }

        return false;
    }

    private bool TryFillAs(WaitingTransfer entry, PageLease lease)
    {
        Span<PinnedPages> room = lease.PinRoom();
        int at = 0;
        foreach (ref readonly IoVector vector in lease.Vectors)
        {
            if (TryFind(vector, out ulong page, out ulong length))
            {
                if (at >= entry.Ranges.Count || entry.Ranges[at] != new PinnedPages(page, length) || !pages.AreResident(page, length))
                {
                    return false;
                }

                room[at++] = new PinnedPages(page, length);
            }
        }

        if (at != entry.Ranges.Count)
        {
            return false;
        }

        lease.NotePinned(entry.Lane!, at, entry.Pages);
        return true;
    }

    private void Unpin(WaitingTransfer entry)
    {
        bool isOwn = PinTable.IsOwn(entry.Lane!);
        foreach (PinnedPages range in entry.Ranges)
        {
            pages.Unpin(entry.Lane!, range.First, range.Count, isOwn);
        }

        _lanes.EndUse(entry.Lane!, entry.Pages, isOwn);
    }

    private void Lower(PinLane lane, long count, bool isOwn)
    {
        _lanes.EndUse(lane, count, isOwn);
        if (Volatile.Read(ref _forBudget) > 0)
        {
            work();
        }
    }

    private void NotePeak(long now)
    {
        long peak = Volatile.Read(ref _peak);
        while (now > peak)
        {
            long before = Interlocked.CompareExchange(ref _peak, now, peak);
            peak = before == peak ? now : before;
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private bool TryFind(in IoVector vector, out ulong page, out ulong count)
    {
        if (vector.Length == 0 || !pages.TryFind(vector.Base, out page))
        {
            page = count = 0;
            return false;
        }

        const ulong Mask = ISwapStore.PageBytes - 1;
        count = (((ulong)vector.Base & Mask) + vector.Length + Mask) / ISwapStore.PageBytes;
        return true;
    }

    private WaitingTransfer Take()
    {
        lock (_gate)
        {
            return _spare.TryPop(out WaitingTransfer? entry) ? entry : new WaitingTransfer();
        }
    }

    private void Enter(WaitingTransfer entry)
    {
        _waiting.Add(entry);
        Volatile.Write(ref _waits, _waiting.Count);
        Volatile.Write(ref _forBudget, _forBudget + (entry.IsForBudget ? 1 : 0));
    }

    private void Leave(WaitingTransfer entry)
    {
        _waiting.Remove(entry);
        Volatile.Write(ref _waits, _waiting.Count);
        Volatile.Write(ref _forBudget, _forBudget - (entry.IsForBudget ? 1 : 0));
        entry.Clear();
        _spare.Push(entry);
    }
}
