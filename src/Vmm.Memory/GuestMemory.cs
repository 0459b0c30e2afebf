using System.Runtime.CompilerServices;
using Vmm.Interop;

namespace Vmm.Memory;

/// <summary>
/// The guest's RAM as devices see it: every access is checked, a GPA outside RAM is an answer (false), never a fault.
/// The guest writes while we read: copy a value once, check the copy, use the copy.
/// The regions are those of <see cref="Ram"/>; regions may only be unmapped after their readers stopped.
/// A device should take leases from <see cref="Dma"/>: what it writes through the accessors here is in no dirty bitmap.
/// </summary>
public sealed unsafe class GuestMemory
{
    /// <summary>Builds the view from regions in any order; overlapping regions are refused.</summary>
    /// <exception cref="ArgumentException">Two regions overlap, or one wraps the address space.</exception>
    public GuestMemory(IEnumerable<GuestRegion> regions)
    {
        Ram = new GuestRam(regions);
        Dma = new DmaSpace(Ram);
    }

    /// <summary>The RAM itself.</summary>
    public GuestRam Ram { get; }

    /// <summary>Gives leases on ranges of it.</summary>
    public DmaSpace Dma { get; }

    /// <summary>The regions, ordered by guest address.</summary>
    public IReadOnlyList<GuestRegion> Regions => Ram.Table.Regions;

    /// <summary>The regions, ordered by guest address, without an interface in between.</summary>
    public ReadOnlySpan<GuestRegion> RegionSpan => Ram.RegionSpan;

    /// <summary>Sum of all regions.</summary>
    public ByteSize Total => Ram.Total;

    /// <inheritdoc cref="GuestRam.ReplaceRegions"/>
    public void ReplaceRegions(IEnumerable<GuestRegion> regions) => Ram.ReplaceRegions(regions);

    /// <summary>True when the whole range is RAM, contiguous for the guest and here.</summary>
    public bool Contains(GuestAddress at, ulong length) => TryMap(at, length, out _);

    /// <summary>Reads one value (native byte order: x86 is little endian, as virtio 1.x is).</summary>
    public bool TryRead<T>(GuestAddress at, out T value) where T : unmanaged
    {
        if (TryMap(at, (ulong)sizeof(T), out byte* host))
        {
            value = Unsafe.ReadUnaligned<T>(host);
            return true;
        }

        value = default;
        return false;
    }

    /// <summary>Writes one value.</summary>
    public bool TryWrite<T>(GuestAddress at, T value) where T : unmanaged
    {
        if (!TryMap(at, (ulong)sizeof(T), out byte* host))
        {
            return false;
        }

        Unsafe.WriteUnaligned(host, value);
        return true;
    }

    /// <summary>Copies guest RAM out; false (and nothing copied) unless the whole range is RAM that is contiguous here.</summary>
    public bool TryRead(GuestAddress at, Span<byte> destination)
    {
        if (!TryMap(at, (ulong)destination.Length, out byte* host))
        {
            return false;
        }

        new ReadOnlySpan<byte>(host, destination.Length).CopyTo(destination);
        return true;
    }

    /// <summary>Copies into guest RAM; false (and nothing copied) unless the whole range is RAM that is contiguous here.</summary>
    public bool TryWrite(GuestAddress at, ReadOnlySpan<byte> source)
    {
        if (!TryMap(at, (ulong)source.Length, out byte* host))
        {
            return false;
        }

        source.CopyTo(new Span<byte>(host, source.Length));
        return true;
    }

    /// <summary>Acquire-load of a ring index (16 bits, naturally aligned); false when outside RAM or unaligned.</summary>
    public bool TryReadIndex(GuestAddress at, out ushort value)
    {
        if ((at.Value & 1) == 0 && TryMap(at, 2, out byte* host))
        {
            value = Volatile.Read(ref *(ushort*)host);
            return true;
        }

        value = 0;
        return false;
    }

    /// <summary>Release-store of a ring index (16 bits, naturally aligned); false when outside RAM or unaligned.</summary>
    public bool TryWriteIndex(GuestAddress at, ushort value)
    {
        if ((at.Value & 1) != 0 || !TryMap(at, 2, out byte* host))
        {
            return false;
        }

        Volatile.Write(ref *(ushort*)host, value);
        return true;
    }

    /// <summary>
    /// Host address of a range for the kernel to read or write (iovec). The caller checked once; the mapping stays while the region table holds it.
    /// </summary>
    public bool TryGetHostAddress(GuestAddress at, ulong length, out nint hostAddress)
    {
        bool found = TryMap(at, length, out byte* host);
        hostAddress = (nint)host;
        return found;
    }

    /// <summary>A short-lived span over guest RAM (keep it inside one method); false when outside RAM.</summary>
    public bool TryGetSpan(GuestAddress at, int length, out Span<byte> span)
    {
        if (length >= 0 && TryMap(at, (ulong)length, out byte* host))
        {
            span = new Span<byte>(host, length);
            return true;
        }

        span = default;
        return false;
    }

    /// <summary>
    /// Gives the whole host pages inside a range back to the host; they read as zeros when the guest touches them again. Parts outside RAM,
    /// host pages that the range covers only partly, and huge pages are left alone: any range is harmless. All are kept while <see cref="DiscardPolicy"/> says so.
    /// </summary>
    /// <param name="at">First guest physical address.</param>
    /// <param name="length">Bytes.</param>
    /// <param name="discarded">Bytes given back.</param>
    /// <returns>0, or the errno of the first piece that the kernel refused.</returns>
    public int Discard(GuestAddress at, ulong length, out ulong discarded)
    {
        discarded = 0;
        int result = 0;
        ulong end = at.TryAdd(length, out GuestAddress last) ? last.Value : ulong.MaxValue;
        ReadOnlySpan<GuestRegion> regions = Ram.RegionSpan;
        for (int i = 0; i < regions.Length; i++)
        {
            ref readonly GuestRegion region = ref regions[i];
            ulong from = Math.Max(at.Value, region.Start.Value), to = Math.Min(end, region.Start.Value + region.Length);
            // Huge pages stay: what went back to their pool could be missing when the guest touches it again, which is a SIGBUS.
            if (from >= to || region.PageSize > ByteSize.BytesPerPage)
            {
                continue;
            }

            // Alignment counts in the host mapping, which starts at a page border of its own.
            ulong host = (ulong)region.HostAddress + (from - region.Start.Value), mask = region.PageSize - 1;
            ulong hostEnd = (host + (to - from)) & ~mask;
            host = (host + mask) & ~mask;
            if (host >= hostEnd)
            {
                continue;
            }

            if (!Ram.Discards.TryBegin(hostEnd - host))
            {
                continue;
            }

            int errno = HostPages.Discard((nint)host, hostEnd - host);
            Ram.Discards.End();
            if (errno == 0)
            {
                discarded += hostEnd - host;
            }
            else if (result == 0)
            {
                result = errno;
            }
        }

        return result;
    }

    private bool TryMap(GuestAddress at, ulong length, out byte* host)
    {
        int hint = 0;
        return Ram.Table.TryMap(at, length, ref hint, out host);
    }
}
