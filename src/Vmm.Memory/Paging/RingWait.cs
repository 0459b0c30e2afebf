namespace Vmm.Memory.Paging;

/// <summary>The thread that activates a queue waits for its ring.</summary>
internal sealed class RingWait : IPageWaiter, IDisposable
{
    internal static PageLease NoLease { get; } = new(1);

    internal ManualResetEventSlim Ready { get; } = new();

    public void PagesReady(PageLease lease) => Ready.Set();

    public void Dispose() => Ready.Dispose();
}
