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

/// <summary>RAM from a start up to, not with, an end.</summary>
internal sealed class RamRange(ulong start, ulong end)
{
    internal ulong Start => start;

    internal ulong End => end;
}

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
        foreach (RamRange ram in MergedRam(memory))
        {
            Add(map, ram.Start, Math.Min(ram.End, BootLayout.LowRamEnd));
            Add(map, Math.Max(ram.Start, BootLayout.HighMemory), ram.End);
        }

        SortByStart(map);
        return map;
    }

    /// <summary>By hand: a handful of lines, and a generic sort costs more to load than to run.</summary>
    private static void SortByStart(List<BootMemoryRange> map)
    {
        for (int i = 1; i < map.Count; i++)
        {
            for (int j = i; j > 0 && map[j - 1].Start > map[j].Start; j--)
            {
                (map[j - 1], map[j]) = (map[j], map[j - 1]);
            }
        }
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
