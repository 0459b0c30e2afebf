namespace Vmm.Memory.Paging;

/// <summary>Where a page lies in an <see cref="ISwapStore"/>. The store gives the number its meaning; 0 is no slot.</summary>
/// <param name="Value">The number.</param>
public readonly record struct SwapSlot(ulong Value)
{
    /// <summary>True when it names no page.</summary>
    public bool IsNone => Value == 0;
}
