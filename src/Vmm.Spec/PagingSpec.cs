using Vmm.Memory;

namespace Vmm.Spec;

/// <summary>How much of a VM's memory is in the host's memory at most, and where the rest is.</summary>
public sealed record PagingSpec
{
    /// <summary>Default of <see cref="Weight"/>.</summary>
    public const int DefaultWeight = 100;

    /// <summary>Largest weight, as that of host CPUs.</summary>
    public const int MaxWeight = 10_000;

    /// <summary>The word for a swap file where the host keeps its own things.</summary>
    public const string AutoSwap = "auto";

    /// <summary>Least memory that can be resident.</summary>
    public static ByteSize LeastResident => ByteSize.MiB(16);

    /// <summary>Most memory that is resident, a part of <see cref="VmSpec.Memory"/>; null, the spec does not say it, is refused.</summary>
    public MemoryPortion? Resident { get; init; }

    /// <summary>Folder of the swap file, which has no name there; null: wherever the host keeps its own things.</summary>
    public string? Swap { get; init; }

    /// <summary>Share of the host's memory beside other VMs when there is not enough, <see cref="DefaultWeight"/> when null.</summary>
    public int? Weight { get; init; }

    private const ulong MostSwap = 1UL << 43; // SwapStore.MostBytes

    /// <summary>
    /// Most bytes that the swap file of a VM takes: all its memory, and a tenth for what lies around pages there; at most 8 TiB.
    /// </summary>
    public static ByteSize SwapLimit(VmSpec spec)
    {
        ulong memory = spec.MostMemory;
        return new ByteSize(Math.Min(memory + (memory / 10), MostSwap));
    }
}
