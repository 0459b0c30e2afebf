using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using Vmm.Memory.Paging;

namespace Vmm.Memory;

/// <summary>
/// How a device comes to guest memory: it acquires ranges, uses them through the lease, and releases it. A page that is not there is waited
/// for before the touch (<see cref="Acquired.Pending"/>), never in a load or store of managed code, where the garbage collector could not
/// stop the thread. Any thread; nothing is allocated.
/// </summary>
/// <param name="ram">The RAM behind it.</param>
public sealed unsafe class DmaSpace(GuestRam ram)
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
        lease.Name(ranges);
        return TryAcquire(lease, access, waiter);
    }

    /// <summary>Acquires the ranges that the lease names (<see cref="PageLease.TryAdd"/>): all of them or none.</summary>
    /// <param name="lease">A lease that is not held.</param>
    /// <param name="access">What the device does.</param>
    /// <param name="waiter">Called after <see cref="Acquired.Pending"/>.</param>
    /// <exception cref="InvalidOperationException">The lease is held.</exception>
    public Acquired TryAcquire(PageLease lease, DmaAccess access, IPageWaiter waiter)
    {
        ArgumentNullException.ThrowIfNull(waiter);
        if (!lease.TryHold(ram, access))
        {
            return Acquired.Outside;
        }

        if (ram.Pages is { } pages)
        {
            Pinned answer = pages.TryPin(lease, waiter);
            if (answer != Pinned.Yes)
            {
                lease.Drop();
                return answer == Pinned.Later ? Acquired.Pending : Acquired.Outside;
            }

            if (!lease.IsCurrent)
            {
                // Memory went between the look at the regions and the pin: who took its pages may not have seen the pin.
                lease.ReleaseWritten(0);
                return TryAcquire(lease, access, waiter);
            }
        }

        return Acquired.Ready;
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
    /// the queue, which may wait, and its pages stay.
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

        ring?.Pin();

        return ring is not null;
    }

    /// <summary>
    /// True when few bytes can be copied now without a wait for a page, or the range is no RAM at all. False: acquire it, and let it go
    /// again, before they are copied.
    /// </summary>
    public bool IsHere(GuestRange range) =>
        ram.Pages is not { } pages || !TryMap(range.Address, range.Length, out byte* host) || pages.AreHere(range, (nint)host);

    /// <summary>True when the whole range is RAM, contiguous for the guest and here.</summary>
    public bool Contains(GuestAddress at, ulong length) => TryMap(at, length, out _);

    /// <summary>
    /// Reads one value (native byte order: x86 is little endian, as virtio 1.x is); false outside RAM. This and the other copies are for
    /// few bytes, and for threads that may wait for a page before they touch it.
    /// </summary>
    public bool TryRead<T>(GuestAddress at, out T value)
        where T : unmanaged
    {
        Unsafe.SkipInit(out T copy);
        bool found = TryMap(at, (ulong)sizeof(T), out byte* host);
        if (found && ram.Pages is null)
        {
            copy = Unsafe.ReadUnaligned<T>(host);
        }
        else if (found)
        {
            VnodePaging.Copy((nint)host, new Span<byte>(&copy, sizeof(T)));
        }

        value = found ? copy : default;
        return found;
    }

    /// <summary>Writes one value and marks its page; false outside RAM.</summary>
    public bool TryWrite<T>(GuestAddress at, T value)
        where T : unmanaged
    {
        return TryWrite(at, new ReadOnlySpan<byte>(&value, sizeof(T)));
    }

    /// <summary>Copies guest RAM out; false (and nothing copied) unless the whole range is RAM that is contiguous here.</summary>
    public bool TryRead(GuestAddress at, Span<byte> destination)
    {
        bool found = TryMap(at, (ulong)destination.Length, out byte* host);
        if (found && ram.Pages is null)
        {
            new ReadOnlySpan<byte>(host, destination.Length).CopyTo(destination);
        }
        else if (found)
        {
            VnodePaging.Copy((nint)host, destination);
        }

        return found;
    }

    /// <summary>
    /// Copies into guest RAM and marks its pages; false (and nothing copied) unless the whole range is RAM that is contiguous here.
    /// </summary>
    public bool TryWrite(GuestAddress at, ReadOnlySpan<byte> source)
    {
        if (!TryMapToWrite(at, (ulong)source.Length, out byte* host))
        {
            return false;
        }

        if (ram.Pages is null)
        {
            source.CopyTo(new Span<byte>(host, source.Length));
        }
        else
        {
            VnodePaging.Copy(source, (nint)host);
        }

        ram.MarkWritten(at, (ulong)source.Length);
        return true;
    }

    /// <summary>Copies the first bytes of the ranges that a lease names, without acquiring it: few bytes, as above.</summary>
    /// <returns>Bytes copied: fewer than asked for when the ranges end, or where one is not RAM.</returns>
    public int Read(PageLease named, Span<byte> destination)
    {
        int done = 0;
        foreach (GuestRange range in named.NamedRanges)
        {
            int part = (int)Math.Min(range.Length, (uint)(destination.Length - done));
            if (part == 0 || !TryRead(range.Address, destination.Slice(done, part)))
            {
                break;
            }

            done += part;
        }

        return done;
    }

    /// <summary>Copies into the first bytes of the ranges that a lease names, without acquiring it, and marks their pages.</summary>
    /// <returns>Bytes copied: fewer than given when the ranges end, or where one is not RAM.</returns>
    public int Write(PageLease named, ReadOnlySpan<byte> source)
    {
        int done = 0;
        foreach (GuestRange range in named.NamedRanges)
        {
            int part = (int)Math.Min(range.Length, (uint)(source.Length - done));
            if (part == 0 || !TryWrite(range.Address, source.Slice(done, part)))
            {
                break;
            }

            done += part;
        }

        return done;
    }

    /// <summary>The same as <see cref="Contains(GuestAddress, ulong)"/> for a caller that looks at ranges one after the other.</summary>
    /// <param name="range">The range.</param>
    /// <param name="hint">Where the last range was found; any number is harmless.</param>
    /// <param name="access">What the device is to do with it.</param>
    public bool Contains(GuestRange range, DmaAccess access, ref int hint) => access == DmaAccess.Write
        ? ram.Table.TryMapToWrite(range.Address, range.Length, ref hint, out _)
        : ram.Table.TryMap(range.Address, range.Length, ref hint, out _);

    private bool TryMap(GuestAddress at, ulong length, out byte* host)
    {
        int hint = 0;
        return ram.Table.TryMap(at, length, ref hint, out host);
    }

    private bool TryMapToWrite(GuestAddress at, ulong length, out byte* host)
    {
        int hint = 0;
        return ram.Table.TryMapToWrite(at, length, ref hint, out host);
    }
}
