using Vmm.Interop;

namespace Vmm.Memory;

/// <summary>
/// A guest's memory: its RAM, the way to it for devices (<see cref="Dma"/>), and giving pages back to the host. Every access is checked: a
/// GPA outside RAM is an answer (false), never a fault. No pointer or span of it comes from anything but a lease.
/// </summary>
public sealed class GuestMemory
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
    public bool Contains(GuestAddress at, ulong length) => Dma.Contains(at, length);

    /// <inheritdoc cref="DmaSpace.TryRead{T}(GuestAddress, out T)"/>
    public bool TryRead<T>(GuestAddress at, out T value)
        where T : unmanaged => Dma.TryRead(at, out value);

    /// <inheritdoc cref="DmaSpace.TryWrite{T}(GuestAddress, T)"/>
    public bool TryWrite<T>(GuestAddress at, T value)
        where T : unmanaged => Dma.TryWrite(at, value);

    /// <inheritdoc cref="DmaSpace.TryRead(GuestAddress, Span{byte})"/>
    public bool TryRead(GuestAddress at, Span<byte> destination) => Dma.TryRead(at, destination);

    /// <inheritdoc cref="DmaSpace.TryWrite(GuestAddress, ReadOnlySpan{byte})"/>
    public bool TryWrite(GuestAddress at, ReadOnlySpan<byte> source) => Dma.TryWrite(at, source);

    /// <summary>
    /// Gives the whole host pages inside a range back to the host; they read as zeros when the guest touches them again. Parts outside RAM,
    /// host pages that the range covers only partly, and huge pages are left alone: any range is harmless. All are kept while
    /// <see cref="DiscardPolicy"/> says so.
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

            int errno = Ram.GiveBack(new GuestRegion(region.Start, new ByteSize(hostEnd - host), (nint)host), out ulong given);
            Ram.Discards.End();
            discarded += given;
            result = result == 0 ? errno : result;
        }

        return result;
    }
}
