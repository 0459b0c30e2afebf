using Vmm.Interop;

namespace Vmm.Memory;

/// <summary>
/// The guest's RAM: which regions there are, and which pages devices wrote. It gives no access; <see cref="DmaSpace"/> does. Any thread may
/// ask; the region table is immutable and replaced whole.
/// </summary>
public sealed class GuestRam
{
    private readonly Lock _changes = new();
    private RegionTable _table;
    private DirtyPages? _dirty;

    /// <summary>Takes regions in any order.</summary>
    /// <exception cref="ArgumentException">Two regions overlap, or one is empty or wraps the address space.</exception>
    public GuestRam(IEnumerable<GuestRegion> regions) => _table = new RegionTable(regions);

    /// <summary>The regions, ordered by guest address.</summary>
    public ReadOnlySpan<GuestRegion> RegionSpan => Table.Regions;

    /// <summary>Sum of all regions.</summary>
    public ByteSize Total
    {
        get
        {
            ByteSize total = default;
            foreach (ref readonly GuestRegion region in RegionSpan)
            {
                total += region.Length;
            }

            return total;
        }
    }

    /// <summary>Who is told what becomes RAM for devices and what ends. Any thread.</summary>
    public MemoryListeners Listeners { get; } = new();

    /// <summary>Whether pages may go back to the host.</summary>
    public DiscardPolicy Discards { get; } = new();

    /// <summary>True while pages that devices write are marked.</summary>
    public bool IsTrackingWrites => Volatile.Read(ref _dirty) is not null;

    /// <summary>
    /// Says which pages are there; null: all of them, always. What pages guest memory in and out sets it, before any device has memory.
    /// </summary>
    internal IPageSource? Pages { get; set; }

    internal RegionTable Table => Volatile.Read(ref _table);

    /// <summary>
    /// Replaces the regions: for <see cref="MemoryMapOwner"/>, who tells the listeners. A lease that is held stays as it is; a ring is
    /// looked up again.
    /// </summary>
    /// <exception cref="ArgumentException">Two regions overlap, or one is empty or wraps the address space.</exception>
    public void ReplaceRegions(IEnumerable<GuestRegion> regions)
    {
        RegionTable table = new(regions);
        lock (_changes)
        {
            // The bitmap covers new RAM before anybody can lease it: no write is lost.
            _dirty?.Cover(table.Regions);
            Volatile.Write(ref _table, table);
        }
    }

    /// <summary>
    /// Starts to mark the pages that devices write, with a clean bitmap. A lease marks its pages at release, so one that is held now counts
    /// when it ends. Nothing changes when tracking is on already.
    /// </summary>
    public void StartTrackingWrites()
    {
        lock (_changes)
        {
            if (_dirty is null)
            {
                DirtyPages dirty = new();
                dirty.Cover(_table.Regions);
                Volatile.Write(ref _dirty, dirty);
            }
        }
    }

    /// <summary>Stops marking and drops the bitmap.</summary>
    public void StopTrackingWrites()
    {
        lock (_changes)
        {
            Volatile.Write(ref _dirty, null);
        }
    }

    /// <summary>
    /// Adds the pages that devices wrote in a range to a bitmap and clears their marks here. The bitmap has the form of KVM_GET_DIRTY_LOG
    /// (bit N is the page N pages after <paramref name="start"/>): the answer of both can be merged in one bitmap per slot. Read the pages
    /// after this call, never before.
    /// </summary>
    /// <param name="start">First guest physical address, at a page border.</param>
    /// <param name="pages">Pages of 4 KiB.</param>
    /// <param name="bitmap">At least one bit for each page; bits that are set stay set.</param>
    /// <exception cref="ArgumentException"><paramref name="start"/> is not at a page border, or the bitmap is too small.</exception>
    /// <exception cref="InvalidOperationException">Writes are not tracked.</exception>
    public void CollectWrittenPages(GuestAddress start, ulong pages, Span<ulong> bitmap)
    {
        if (start.Value % ByteSize.BytesPerPage != 0 || pages > (ulong)bitmap.Length * 64)
        {
            throw new ArgumentException($"A bitmap of {bitmap.Length * 64L} pages at {start} cannot take {pages} pages.", nameof(bitmap));
        }

        DirtyPages dirty = Volatile.Read(ref _dirty)
            ?? throw new InvalidOperationException("Written pages are asked for, but writes are not tracked.");
        dirty.Collect(start.Value / ByteSize.BytesPerPage, pages, bitmap);
    }

    /// <summary>
    /// Gives pages back to the host: they read as zeros. Ask <see cref="Discards"/> first. Pages that a transfer uses stay when memory is
    /// paged.
    /// </summary>
    /// <param name="region">Whole pages of RAM, not huge ones.</param>
    /// <param name="given">Bytes given back.</param>
    /// <returns>0, or the errno with which the kernel refused.</returns>
    public int GiveBack(in GuestRegion region, out ulong given)
    {
        if (Pages is { } pages)
        {
            given = pages.Discard(region.HostAddress, region.Length);
            return 0;
        }

        int errno = HostPages.Discard(region.HostAddress, region.Length);
        given = errno == 0 ? region.Length : 0UL;
        return errno;
    }

    /// <summary>Marks the pages of a range that was written.</summary>
    internal void MarkWritten(GuestAddress at, ulong length)
    {
        if (Volatile.Read(ref _dirty) is { } dirty)
        {
            dirty.Mark(at, length);
        }
    }
}
