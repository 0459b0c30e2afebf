namespace Vmm.Memory;

/// <summary>A range of guest physical addresses, as a descriptor names it. Nothing is checked yet.</summary>
/// <param name="Address">First guest physical address.</param>
/// <param name="Length">Bytes; 0 is a range, too.</param>
public readonly record struct GuestRange(GuestAddress Address, uint Length);

/// <summary>What a device does with guest memory, seen from the device.</summary>
public enum DmaAccess
{
    /// <summary>The device reads what the guest wrote.</summary>
    Read,

    /// <summary>The device writes; it may read as well.</summary>
    Write,
}

/// <summary>Answer of <see cref="DmaSpace.TryAcquire(ReadOnlySpan{GuestRange}, DmaAccess, PageLease, IPageWaiter)"/>.</summary>
public enum Acquired
{
    /// <summary>The lease is held: the pages are there until <see cref="PageLease.Release"/>.</summary>
    Ready,

    /// <summary>
    /// Pages are on their way in. The lease is not held and belongs to the space until <see cref="IPageWaiter.PagesReady"/>.
    /// </summary>
    Pending,

    /// <summary>A range is not RAM, or not contiguous in this process. The lease is not held.</summary>
    Outside,
}

/// <summary>Who waits for pages after <see cref="Acquired.Pending"/>.</summary>
public interface IPageWaiter
{
    /// <summary>
    /// The pages came: acquire again, on the loop of the device. Called once for each <see cref="Acquired.Pending"/>, on any thread: it is
    /// quick and passes the news on. The answer of the second call may be any of the three.
    /// </summary>
    /// <param name="lease">The lease that was to be acquired.</param>
    void PagesReady(PageLease lease);
}

/// <summary>Knows which guest pages are resident.</summary>
internal interface IPageSource
{
    /// <summary>
    /// True when every page of the lease is there, and stays until its release. False: <see cref="IPageWaiter.PagesReady"/> of
    /// <paramref name="waiter"/> is going to be called, not inside this call.
    /// </summary>
    bool TryPin(PageLease lease, DmaAccess access, IPageWaiter waiter);
}
