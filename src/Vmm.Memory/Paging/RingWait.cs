namespace Vmm.Memory.Paging;

/// <summary>The thread that activates a queue waits for its ring.</summary>
internal sealed class RingWait : IPageWaiter, IDisposable
{
    /// <summary>A ring has pins and no lease.</summary>
    internal static PageLease NoLease { get; } = new(1);

    /// <summary>Set when the pages came.</summary>
    internal ManualResetEventSlim Ready { get; } = new();

    /// <inheritdoc/>
    public void PagesReady(PageLease lease) => Ready.Set();

    /// <inheritdoc/>
    public void Dispose() => Ready.Dispose();
}
