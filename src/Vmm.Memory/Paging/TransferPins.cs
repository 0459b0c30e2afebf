using Vmm.Interop;

namespace Vmm.Memory.Paging;

/// <summary>
/// The filter's side of the pager: a transfer pins its pages, or waits. One that waits for pages keeps them pinned from the first look on,
/// so that each page comes once. All transfers together pin a share of the resident limit at most; one alone may have more, up to half of
/// it. Any thread; a transfer that finds its pages takes no lock and allocates nothing.
/// </summary>
internal sealed class TransferPins(ResidencyCache pages, PageMover mover, Action work) : IPageSource
{
    private const long ForgetAfterMilliseconds = 5000;
    private const int HitShift = 32;
    private readonly Lock _gate = new();
    private readonly List<WaitingTransfer> _waiting = [];
    private readonly Stack<WaitingTransfer> _spare = [];
    private volatile bool _halted;
    private int _waits; // entries of _waiting
    private int _forBudget; // those that wait until others use less
    private long _use; // pages that transfers have pinned, and above them how many found theirs: one locked operation for both
    private uint _hitsSeen; // of those, how many _hits has; under the lock
    private long _peak, _rings, _hits, _misses, _budgetWaits, _limit = long.MaxValue;

    /// <summary>Pages that may be resident: an eighth may be pinned.</summary>
    internal long Limit
    {
        get => Volatile.Read(ref _limit);
        set => Volatile.Write(ref _limit, value);
    }

    /// <summary>Pages pinned by transfers and rings.</summary>
    internal long Pinned => InUse + Volatile.Read(ref _rings);

    /// <summary>Most that transfers pinned at once.</summary>
    internal long Peak => Volatile.Read(ref _peak);

    /// <summary>Transfers that found their pages.</summary>
    internal long Hits
    {
        get
        {
            lock (_gate)
            {
                return TakeHits();
            }
        }
    }

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

        bool here = !_halted;
        long count = 0;
        foreach (ref readonly IoVector vector in lease.Vectors)
        {
            if (TryFind(vector, out ulong page, out ulong length))
            {
                pages.Pin(page, length);
                here &= pages.AreResident(page, length);
                count += (long)length;
            }
        }

        long now = (uint)Interlocked.Add(ref _use, count + (1L << HitShift));
        bool fits = now == count || now <= Limit / 8;
        if (here && fits)
        {
            NotePeak(now);
            return Memory.Pinned.Yes;
        }

        Interlocked.Add(ref _use, -(1L << HitShift));

        if (count > Limit / 2)
        {
            UnpinAll(lease, count);
            return Memory.Pinned.Never;
        }

        Wait(lease, waiter, count, forBudget: !fits);
        return Memory.Pinned.Later;
    }

    /// <inheritdoc/>
    public void Unpin(PageLease lease)
    {
        long count = 0;
        foreach (ref readonly IoVector vector in lease.Vectors)
        {
            if (TryFind(vector, out ulong page, out ulong length))
            {
                pages.Unpin(page, length);
                count += (long)length;
            }
        }

        Lower(count);
    }

    /// <inheritdoc/>
    public void PinRing(nint address, ulong length)
    {
        if (TryFind(new IoVector(address, (nuint)length), out ulong page, out ulong count))
        {
            pages.Pin(page, count);
            Interlocked.Add(ref _rings, (long)count);
            using RingWait wait = new();
            while (!_halted && !pages.AreResident(page, count))
            {
                WaitingTransfer entry = Take();
                lock (_gate)
                {
                    entry.Begin(RingWait.NoLease, wait, isForBudget: false);
                    entry.Add(page, count);
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
            pages.Unpin(page, count);
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
        _ = Hits; // before the short count goes round
        if (Volatile.Read(ref _waits) == 0)
        {
            return;
        }

        List<(PageLease Lease, IPageWaiter Waiter)> told = [];
        lock (_gate)
        {
            long old = Environment.TickCount64 - ForgetAfterMilliseconds;
            long room = (Limit / 8) - InUse;
            for (int i = _waiting.Count - 1; i >= 0; i--)
            {
                WaitingTransfer entry = _waiting[i];
                if (entry.IsForBudget && (room > 0 || InUse == 0))
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

    private long InUse => (uint)Volatile.Read(ref _use);

    private long TakeHits()
    {
        uint now = (uint)(Volatile.Read(ref _use) >> HitShift);
        _hits += now - _hitsSeen;
        _hitsSeen = now;
        return _hits;
    }

    private void Wait(PageLease lease, IPageWaiter waiter, long count, bool forBudget)
    {
        Interlocked.Increment(ref forBudget ? ref _budgetWaits : ref _misses);
        WaitingTransfer entry = Take();
        lock (_gate)
        {
            entry.Begin(lease, waiter, forBudget);
            if (!forBudget)
            {
                foreach (ref readonly IoVector vector in lease.Vectors)
                {
                    if (TryFind(vector, out ulong page, out ulong length))
                    {
                        entry.Add(page, length);
                    }
                }
            }

            Enter(entry);
        }

        if (forBudget)
        {
            UnpinAll(lease, count);
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
                    bool same = IsOf(entry, lease);
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

    private bool IsOf(WaitingTransfer entry, PageLease lease)
    {
        int at = 0;
        foreach (ref readonly IoVector vector in lease.Vectors)
        {
            if (TryFind(vector, out ulong page, out ulong length)
                && (at >= entry.Ranges.Count || entry.Ranges[at++] != (page, length) || !pages.AreResident(page, length)))
            {
                return false;
            }
        }

        return at == entry.Ranges.Count;
    }

    private void Unpin(WaitingTransfer entry)
    {
        foreach ((ulong page, ulong count) in entry.Ranges)
        {
            pages.Unpin(page, count);
        }

        Interlocked.Add(ref _use, -(long)entry.Pages);
    }

    private void UnpinAll(PageLease lease, long count)
    {
        foreach (ref readonly IoVector vector in lease.Vectors)
        {
            if (TryFind(vector, out ulong page, out ulong length))
            {
                pages.Unpin(page, length);
            }
        }

        Lower(count);
    }

    private void Lower(long count)
    {
        Interlocked.Add(ref _use, -count);
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
