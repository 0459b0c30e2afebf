using System.Runtime.CompilerServices;

namespace Vmm.Memory;

/// <summary>An immutable table of regions, ordered by guest address.</summary>
internal sealed unsafe class RegionTable
{
    private readonly GuestRegion[] _regions;

    /// <summary>Takes regions in any order.</summary>
    /// <exception cref="ArgumentException">Two regions overlap, or one is empty or wraps the address space.</exception>
    internal RegionTable(IEnumerable<GuestRegion> regions) => _regions = Sort(regions);

    internal GuestRegion[] Regions => _regions;

    /// <summary>Host pointer of a range that is RAM and contiguous in this process; false otherwise.</summary>
    /// <param name="at">First guest physical address.</param>
    /// <param name="length">Bytes.</param>
    /// <param name="hint">Where the caller found its last range; tried first and updated. Any number is harmless.</param>
    /// <param name="host">Where the range starts in this process, or null.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal bool TryMap(GuestAddress at, ulong length, ref int hint, out byte* host)
    {
        GuestRegion[] regions = _regions;
        return ((uint)hint < (uint)regions.Length && regions[hint].TryMap(at, length, out host))
            || TrySearch(at, length, ref hint, out host);
    }

    /// <summary>The same for a range that is to be written: false also where that is read-only.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal bool TryMapToWrite(GuestAddress at, ulong length, ref int hint, out byte* host) =>
        TryMap(at, length, ref hint, out host) && !_regions[hint].IsReadOnly;

    [MethodImpl(MethodImplOptions.NoInlining)]
    private bool TrySearch(GuestAddress at, ulong length, ref int hint, out byte* host)
    {
        host = null;
        int first = LastStartingAtOrBefore(at);
        if (first < 0)
        {
            return false;
        }

        ref readonly GuestRegion region = ref _regions[first];
        ulong inside = at.Value - region.Start.Value;
        if (inside >= region.Length)
        {
            return false;
        }

        hint = first;
        // A range over the border of two regions counts when they touch for the guest and in this process: vnodes are mapped side by side.
        ulong available = region.Length - inside;
        for (int next = first + 1; available < length && next < _regions.Length && _regions[next - 1].Touches(_regions[next]); next++)
        {
            available += _regions[next].Length;
        }

        if (available < length)
        {
            return false;
        }

        host = (byte*)region.HostAddress + inside;
        return true;
    }

    private int LastStartingAtOrBefore(GuestAddress at)
    {
        int low = 0, high = _regions.Length;
        while (low < high)
        {
            int middle = (low + high) >>> 1;
            if (_regions[middle].Start.Value <= at.Value)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }

        return low - 1;
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
