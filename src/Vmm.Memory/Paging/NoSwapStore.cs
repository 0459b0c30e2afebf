namespace Vmm.Memory.Paging;

/// <summary>The store of a pager that takes no page out: it is there for a restore.</summary>
public sealed class NoSwapStore : ISwapStore
{
    /// <inheritdoc/>
    public SwapStatistics Statistics => default;

    /// <inheritdoc/>
    public void Write(ReadOnlySpan<byte> pages, Span<SwapSlot> slots) => throw new SwapStoreException("the VM has no swap file");

    /// <inheritdoc/>
    public int Read(SwapSlot slot, Span<byte> pages, Span<SwapSlot> slots) => throw new SwapStoreException("the VM has no swap file");

    /// <inheritdoc/>
    public void Free(SwapSlot slot)
    {
        // Nothing is kept.
    }

    /// <inheritdoc/>
    public ulong Trim(ulong most) => 0;

    /// <inheritdoc/>
    public void Dispose()
    {
        // There is no file.
    }
}
