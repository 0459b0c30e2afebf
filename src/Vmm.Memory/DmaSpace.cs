using System.Diagnostics.CodeAnalysis;

namespace Vmm.Memory;

/// <summary>
/// How a device comes to guest memory: it acquires ranges, uses them through the lease, and releases it. A page that is not there is waited
/// for before
/// the touch (<see cref="Acquired.Pending"/>), never in a load or store of managed code, where the garbage collector could not stop the
/// thread.
/// Today every page is there and the answer is never Pending; a caller handles it all the same. Any thread; nothing is allocated.
/// </summary>
/// <param name="ram">The RAM behind it.</param>
public sealed class DmaSpace(GuestRam ram)
{
    /// <summary>The RAM behind it.</summary>
    public GuestRam Ram => ram;

    /// <summary>Acquires ranges, one piece of the lease for each: all of them or none.</summary>
    /// <param name="ranges">At most <see cref="PageLease.MaximumPieces"/>. Each must be RAM that is contiguous in this process.</param>
    /// <param name="access">What the device does.</param>
    /// <param name="lease">A lease that is not held.</param>
    /// <param name="waiter">Called after <see cref="Acquired.Pending"/>.</param>
    /// <exception cref="ArgumentException">There are more ranges than pieces.</exception>
    /// <exception cref="InvalidOperationException">The lease is held.</exception>
    public Acquired TryAcquire(ReadOnlySpan<GuestRange> ranges, DmaAccess access, PageLease lease, IPageWaiter waiter)
    {
        ArgumentNullException.ThrowIfNull(waiter);
        return lease.TryHold(ram, ranges, access) ? Acquired.Ready : Acquired.Outside;
    }

    /// <summary>Acquires one range.</summary>
    /// <param name="range">It must be RAM that is contiguous in this process.</param>
    /// <param name="access">What the device does.</param>
    /// <param name="lease">A lease that is not held.</param>
    /// <param name="waiter">Called after <see cref="Acquired.Pending"/>.</param>
    /// <exception cref="InvalidOperationException">The lease is held.</exception>
    public Acquired TryAcquire(GuestRange range, DmaAccess access, PageLease lease, IPageWaiter waiter) =>
        TryAcquire(new ReadOnlySpan<GuestRange>(in range), access, lease, waiter);

    /// <summary>
    /// Leases the parts of a ring for as long as the queue is active. There is no Pending: a ring is acquired by the thread that activates
    /// the queue,
    /// which may wait, and its pages stay.
    /// </summary>
    /// <returns>False when a part is not RAM, not contiguous in this process, or not aligned.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The size is not a power of two up to 32768.</exception>
    public bool TryAcquireRing(RingParts parts, [NotNullWhen(true)] out RingView? ring)
    {
        ring = new RingView(ram, parts);
        if (!ring.TryHold())
        {
            ring = null;
        }

        return ring is not null;
    }
}
