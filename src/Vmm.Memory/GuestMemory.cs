using System.Runtime.CompilerServices;
using Vmm.Interop;

namespace Vmm.Memory;

/// <summary>One contiguous piece of guest RAM: where the guest sees it and where this process has it mapped.</summary>
public readonly unsafe struct GuestRegion
{
    private readonly byte* _host;

    /// <summary>Describes <paramref name="length"/> of RAM at <paramref name="start"/>, mapped at <paramref name="hostAddress"/> in pages of <paramref name="pageSize"/> bytes.</summary>
    public GuestRegion(GuestAddress start, ByteSize length, nint hostAddress, int vnode = 0, ulong pageSize = ByteSize.BytesPerPage)
    {
        PageSize = pageSize;
        Start = start;
        Length = length;
        _host = (byte*)hostAddress;
        Vnode = vnode;
    }

    /// <summary>First guest physical address.</summary>
    public GuestAddress Start { get; }

    /// <summary>How much RAM it is.</summary>
    public ByteSize Length { get; }

    /// <summary>The virtual NUMA node this RAM belongs to.</summary>
    public int Vnode { get; }

    /// <summary>Size of the host pages behind it, in bytes: what can be given back to the host at once.</summary>
    public ulong PageSize { get; }

    /// <summary>Address of the first byte in this process, for KVM memory slots and mbind.</summary>
    public nint HostAddress => (nint)_host;

    /// <summary>True when <paramref name="next"/> goes on where this region ends, for the guest and in this process.</summary>
    internal bool Touches(in GuestRegion next) => next.Start.Value == Start.Value + Length && next._host == _host + Length.Bytes;

    /// <summary>Host pointer for a range that lies wholly inside the region; false otherwise.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal bool TryMap(GuestAddress at, ulong length, out byte* host)
    {
        ulong offset = unchecked(at.Value - Start.Value);
        if (at.Value < Start.Value || offset >= Length || length > Length - offset)
        {
            host = null;
            return false;
        }

        host = _host + offset;
        return true;
    }
}

/// <summary>
/// The guest's RAM as devices see it: every access is checked, a GPA outside RAM is an answer (false), never a fault.
/// The guest writes while we read: copy a value once, check the copy, use the copy.
/// The region table is immutable and replaced whole (<see cref="ReplaceRegions"/>); regions may only be unmapped after their readers stopped.
/// </summary>
public sealed unsafe class GuestMemory
{
    private GuestRegion[] _regions;

    /// <summary>Builds the view from regions in any order; overlapping regions are refused.</summary>
    /// <exception cref="ArgumentException">Two regions overlap, or one wraps the address space.</exception>
    public GuestMemory(IEnumerable<GuestRegion> regions) => _regions = Sort(regions);

    /// <summary>The regions, ordered by guest address.</summary>
    public IReadOnlyList<GuestRegion> Regions => Volatile.Read(ref _regions);

    /// <summary>The regions, ordered by guest address, without an interface in between.</summary>
    public ReadOnlySpan<GuestRegion> RegionSpan => Volatile.Read(ref _regions);

    /// <summary>Sum of all regions.</summary>
    public ByteSize Total
    {
        get
        {
            ByteSize total = default;
            foreach (GuestRegion region in Volatile.Read(ref _regions))
            {
                total += region.Length;
            }

            return total;
        }
    }

    /// <summary>Swaps in a new region table (memory hotplug).</summary>
    public void ReplaceRegions(IEnumerable<GuestRegion> regions)
    {
        Volatile.Write(ref _regions, Sort(regions));
        RegionsChanged?.Invoke(this, EventArgs.Empty);
    }

    /// <summary>The region table was replaced; raised on the thread that did it, which goes on when every handler has taken note.</summary>
    public event EventHandler? RegionsChanged;

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
    /// host pages that the range covers only partly, and huge pages are left alone: any range is harmless.
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
        GuestRegion[] regions = Volatile.Read(ref _regions);
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

            int errno = HostPages.Discard((nint)host, hostEnd - host);
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

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private bool TryMap(GuestAddress at, ulong length, out byte* host)
    {
        GuestRegion[] regions = Volatile.Read(ref _regions);
        for (int i = 0; i < regions.Length; i++)
        {
            if (regions[i].TryMap(at, length, out host))
            {
                return true;
            }
        }

        return TryMapAcross(regions, at, length, out host);
    }

    /// <summary>A range over the border of two regions counts when they touch for the guest and in this process: vnodes are mapped side by side.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool TryMapAcross(GuestRegion[] regions, GuestAddress at, ulong length, out byte* host)
    {
        for (int first = 0; first < regions.Length; first++)
        {
            ulong inside = unchecked(at.Value - regions[first].Start.Value);
            if (at.Value < regions[first].Start.Value || inside >= regions[first].Length)
            {
                continue;
            }

            ulong available = regions[first].Length - inside;
            for (int next = first + 1; available < length && next < regions.Length && regions[next - 1].Touches(regions[next]); next++)
            {
                available += regions[next].Length;
            }

            host = available >= length ? (byte*)regions[first].HostAddress + inside : null;
            return host != null;
        }

        host = null;
        return false;
    }

    private static GuestRegion[] Sort(IEnumerable<GuestRegion> regions)
    {
        // By hand: a generic sort over a struct of ours would be compiled at every start of the program.
        GuestRegion[] sorted = regions is GuestRegion[] given ? (GuestRegion[])given.Clone() : regions.ToArray();
        for (int i = 1; i < sorted.Length; i++)
        {
            GuestRegion region = sorted[i];
            int at = i;
            for (; at > 0 && sorted[at - 1].Start.Value > region.Start.Value; at--)
            {
                sorted[at] = sorted[at - 1];
            }

            sorted[at] = region;
        }

        for (int i = 0; i < sorted.Length; i++)
        {
            if (sorted[i].Length == 0 || !sorted[i].Start.TryAdd(sorted[i].Length - 1, out _))
            {
                throw new ArgumentException($"Guest region at {sorted[i].Start} is empty or wraps the address space.", nameof(regions));
            }

            if (i > 0 && sorted[i].Start.Value - sorted[i - 1].Start.Value < sorted[i - 1].Length)
            {
                throw new ArgumentException($"Guest regions at {sorted[i - 1].Start} and {sorted[i].Start} overlap.", nameof(regions));
            }
        }

        return sorted;
    }
}
