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

/// <summary>Answer of <see cref="IPageSource.TryPin"/>.</summary>
internal enum Pinned
{
    /// <summary>Every page is there, and stays until <see cref="IPageSource.Unpin"/>.</summary>
    Yes,

    /// <summary><see cref="IPageWaiter.PagesReady"/> is going to be called, not inside the call.</summary>
    Later,

    /// <summary>The lease is more than can be resident at once.</summary>
    Never,
}

/// <summary>Knows which guest pages are resident. A lease is asked about by its vectors: addresses of this process. Any thread.</summary>
internal interface IPageSource
{
    /// <summary>Pins the pages of a lease, all or none.</summary>
    Pinned TryPin(PageLease lease, IPageWaiter waiter);

    /// <summary>Ends what <see cref="TryPin"/> answered with <see cref="Pinned.Yes"/>; the vectors are those of then.</summary>
    void Unpin(PageLease lease);

    /// <summary>True when the pages of a range are there now, and count as used; they may go at any time.</summary>
    /// <param name="range">The range.</param>
    /// <param name="address">Where it is in this process.</param>
    bool AreHere(GuestRange range, nint address);

    /// <summary>Pins a part of a ring, and waits for its pages.</summary>
    void PinRing(nint address, ulong length);

    /// <summary>Ends <see cref="PinRing"/> of the same part.</summary>
    void UnpinRing(nint address, ulong length);

    /// <summary>Gives pages back to the host whose content nobody wants any more; one that a transfer uses stays.</summary>
    /// <param name="address">First byte in this process, at a page border.</param>
    /// <param name="length">Bytes, whole pages of one mapping.</param>
    /// <returns>Bytes that are empty now.</returns>
    ulong Discard(nint address, ulong length);
}
