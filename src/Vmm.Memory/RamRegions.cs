namespace Vmm.Memory;

/// <summary>
/// Region lists with a piece more or less. What touches and is of one kind is one region: the kernel's tables of regions are short.
/// </summary>
internal static class RamRegions
{
    /// <summary>The regions and one more, joined to its neighbours where they go on from each other.</summary>
    /// <exception cref="ArgumentException">It overlaps one.</exception>
    internal static GuestRegion[] With(ReadOnlySpan<GuestRegion> regions, GuestRegion added)
    {
        List<GuestRegion> all = new(regions.Length + 1);
        foreach (ref readonly GuestRegion region in regions)
        {
            if (region.Start.Value < added.Start.Value + added.Length && added.Start.Value < region.Start.Value + region.Length)
            {
                throw new ArgumentException($"RAM at {added.Start} overlaps the region at {region.Start}.", nameof(added));
            }

            if (Joins(region, added))
            {
                added = Part(region, region.Start, region.Length + added.Length);
            }
            else if (Joins(added, region))
            {
                added = Part(added, added.Start, added.Length + region.Length);
            }
            else
            {
                all.Add(region);
            }
        }

        all.Add(added);
        return [.. all];
    }

    /// <summary>The regions without a range of one of them.</summary>
    /// <exception cref="ArgumentException">Not all of it is RAM of one region.</exception>
    internal static GuestRegion[] Without(ReadOnlySpan<GuestRegion> regions, GuestAddress start, ByteSize length, out GuestRegion removed)
    {
        List<GuestRegion> all = new(regions.Length + 1);
        removed = default;
        foreach (ref readonly GuestRegion region in regions)
        {
            ulong offset = unchecked(start.Value - region.Start.Value);
            if (length == 0 || offset >= region.Length || length > region.Length - offset)
            {
                all.Add(region);
                continue;
            }

            removed = Part(region, start, length);
            if (offset > 0)
            {
                all.Add(Part(region, region.Start, new ByteSize(offset)));
            }

            ulong behind = region.Length - offset - length;
            if (behind > 0)
            {
                all.Add(Part(region, start + length.Bytes, new ByteSize(behind)));
            }
        }

        return removed.Length == 0
            ? throw new ArgumentException($"{length} at {start} are not RAM of one region.", nameof(start))
            : [.. all];
    }

    private static bool Joins(in GuestRegion first, in GuestRegion second) =>
        first.Touches(second) && first.Vnode == second.Vnode && first.PageSize == second.PageSize;

    private static GuestRegion Part(in GuestRegion region, GuestAddress start, ByteSize length) =>
        new(start, length, region.HostAddress + (nint)(start.Value - region.Start.Value), region.Vnode, region.PageSize);
}
