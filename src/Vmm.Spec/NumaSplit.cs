using Vmm.Memory;

namespace Vmm.Spec;

/// <summary>What <c>--numa N</c> means: CPUs and memory divided evenly.</summary>
public static class NumaSplit
{
    /// <summary>Vnode sizes are multiples of this, so that each can use 2 MiB pages.</summary>
    public const ulong Unit = 2UL << 20;

    /// <summary>
    /// Splits the spec's CPUs and memory over <paramref name="count"/> vnodes; remainders go to the first ones, bytes below a unit to the
    /// last.
    /// </summary>
    /// <remarks>What may come and go is divided evenly, too; what does not divide into blocks is left out.</remarks>
    /// <exception cref="SpecException">Less than one unit of memory per vnode, or a count outside 1 to
    /// <see cref="SpecValidation.MaxVnodes"/>.</exception>
    public static VmSpec Apply(VmSpec spec, int count)
    {
        if (count is < 1 or > SpecValidation.MaxVnodes)
        {
            throw new SpecException([new SpecProblem("numa", $"{count} vnodes, expected 1 to {SpecValidation.MaxVnodes}")]);
        }

        ulong units = spec.Memory / Unit;
        if (units < (ulong)count)
        {
            throw new SpecException([new SpecProblem("numa", $"{spec.Memory} is less than 2MiB for each of {count} vnodes")]);
        }

        VnodeSpec[] vnodes = new VnodeSpec[count];
        int nextCpu = 0;
        for (int i = 0; i < count; i++)
        {
            int cpus = (spec.Cpus / count) + (i < spec.Cpus % count ? 1 : 0);
            ulong share = (units / (ulong)count) + ((ulong)i < units % (ulong)count ? 1UL : 0);
            ByteSize memory = new((share * Unit) + (i == count - 1 ? spec.Memory % Unit : 0));
            vnodes[i] = new VnodeSpec
            {
                Cpus = NumberSet.Range(nextCpu, cpus),
                Memory = memory,
                MinMemory = spec.MinMemory is { } min ? new ByteSize(memory - Even(spec.Memory - min, count)) : null,
                MaxMemory = spec.MaxMemory is { } max ? new ByteSize(memory + Even(max - spec.Memory, count)) : null,
            };
            nextCpu += cpus;
        }

        return spec with { Numa = new NumaSpec { Vnodes = vnodes }, MinMemory = null, MaxMemory = null };
    }

    // 128 MiB once a vnode's share is so large that its blocks are (VnodeSpec.HotBlock).
    private static ulong Even(ulong bytes, int count)
    {
        ulong share = bytes / (ulong)count, unit = share > 128UL << 30 ? 128UL << 20 : Unit;
        return share - (share % unit);
    }
}
