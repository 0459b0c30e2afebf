using Vmm.Interop;

namespace Vmm.Memory.Paging;

/// <summary>
/// The filter's side of a pager that is there for a restore: as <see cref="TransferPins"/>, until all pages are there and stay. From then
/// on it costs a look at one flag.
/// </summary>
/// <param name="pins">Those of the restore.</param>
/// <param name="lanes">Their table.</param>
internal sealed class RestorePins(TransferPins pins, PinTable lanes) : IPageSource
{
    private volatile bool _isOver;
    private int _inside; // calls that may begin to wait

    /// <inheritdoc/>
    public Pinned TryPin(PageLease lease, IPageWaiter waiter)
    {
        if (!_isOver)
        {
            Interlocked.Increment(ref _inside);
            try
            {
                if (!_isOver)
                {
                    return pins.TryPin(lease, waiter);
                }
            }
            finally
            {
                Interlocked.Decrement(ref _inside);
            }
        }

        lease.NotePinned(lanes.Shared, 0, 0);
        return Pinned.Yes;
    }

    /// <inheritdoc/>
    public void Unpin(PageLease lease)
    {
        if (!_isOver || lease.PinnedRanges.Length > 0)
        {
            pins.Unpin(lease);
        }
    }

    /// <inheritdoc/>
    public bool AreHere(GuestRange range, nint address) => _isOver || pins.AreHere(range, address);

    /// <inheritdoc/>
    public void PinRing(nint address, ulong length)
    {
        Interlocked.Increment(ref _inside);
        try
        {
            if (!_isOver)
            {
                pins.PinRing(address, length);
            }
        }
        finally
        {
            Interlocked.Decrement(ref _inside);
        }
    }

    /// <inheritdoc/>
    public void UnpinRing(nint address, ulong length)
    {
        if (!_isOver)
        {
            pins.UnpinRing(address, length);
        }
    }

    /// <inheritdoc/>
    public ulong Discard(nint address, ulong length) => !_isOver ? pins.Discard(address, length)
        : HostPages.Discard(address, length) == 0 ? length : 0;

    /// <summary>
    /// From now on every page is there and stays: the kernel gives those that were never touched. Who waits is served still; this returns
    /// when nobody does.
    /// </summary>
    /// <param name="serve">Has those who wait looked at.</param>
    /// <param name="isStopping">Gives up.</param>
    internal void End(Action serve, Func<bool> isStopping)
    {
        _isOver = true;
        Interlocked.MemoryBarrier(); // whoever comes in from here on sees it
        while ((Volatile.Read(ref _inside) > 0 || pins.Waits > 0) && !isStopping())
        {
            serve();
            Thread.Sleep(1);
        }
    }
}
