using Vmm.Memory;

namespace Vmm.Machine.Boot;

/// <summary>A line of the memory map handed to the guest. Types are the e820 ones: 1 RAM, 2 reserved.</summary>
public sealed record BootMemoryRange(ulong Start, ulong Length, uint Type)
{
    /// <summary>Usable RAM.</summary>
    public const uint Ram = 1;

    /// <summary>Not for the guest's use.</summary>
    public const uint Reserved = 2;
}

/// <summary>RAM from <paramref name="Start"/> up to, not with, <paramref name="End"/>.</summary>
internal sealed record RamRange(ulong Start, ulong End);

/// <summary>Makes the guest's memory map from the RAM regions (ACPI 6.5 chapter 15: ranges ascend and do not overlap).</summary>
public static class BootMemoryMap
{
    /// <summary>RAM merged across vnodes, the holes of the first MiB cut out, <paramref name="reserved"/> added.</summary>
    public static IReadOnlyList<BootMemoryRange> Create(GuestMemory memory, IReadOnlyList<BootMemoryRange> reserved)
    {
        List<BootMemoryRange> map =
        [
            new(BootLayout.LowRamEnd, BootLayout.EbdaEnd - BootLayout.LowRamEnd, BootMemoryRange.Reserved),
            new(BootLayout.AcpiTables, BootLayout.HighMemory - BootLayout.AcpiTables, BootMemoryRange.Reserved),
            .. reserved,
        ];
        foreach ((ulong start, ulong end) in MergedRam(memory))
        {
            Add(map, start, Math.Min(end, BootLayout.LowRamEnd));
            Add(map, Math.Max(start, BootLayout.HighMemory), end);
        }

        map.Sort((a, b) => a.Start.CompareTo(b.Start));
        return map;
    }

    /// <summary>RAM as (start, end) with touching regions joined.</summary>
    internal static List<RamRange> MergedRam(GuestMemory memory)
    {
        List<RamRange> merged = [];
        foreach (ref readonly GuestRegion region in memory.RegionSpan)
        {
            ulong start = region.Start.Value;
            if (merged.Count > 0 && merged[^1].End == start)
            {
                merged[^1] = new RamRange(merged[^1].Start, start + region.Length);
            }
            else
            {
                merged.Add(new RamRange(start, start + region.Length));
            }
        }

        return merged;
    }

    private static void Add(List<BootMemoryRange> map, ulong start, ulong end)
    {
        if (start < end)
        {
            map.Add(new BootMemoryRange(start, end - start, BootMemoryRange.Ram));
        }
    }
}
