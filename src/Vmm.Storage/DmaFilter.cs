using Vmm.Memory;

namespace Vmm.Storage;

/// <summary>
/// The last station before storage (design.md, section 6): a request that names guest pages gets them here and gives them back here, so
/// that a request which is held before this node has none. One whose pages are on their way in waits for them alone; the others go on.
/// </summary>
/// <param name="memory">The guest's memory.</param>
/// <param name="target">Where requests go; it stays the caller's.</param>
public sealed class DmaFilter(DmaSpace memory, IBlockNode target) : IBlockNode, IBlockOwner, IBlockPageWaiter
{
    private TaskCompletionSource? _closed;

    /// <inheritdoc/>
    public BlockGeometry Geometry => target.Geometry;

    /// <inheritdoc/>
    public int InFlight { get; private set; }

    /// <inheritdoc/>
    public bool WritesZeroesAsData(bool mayUnmap) => target.WritesZeroesAsData(mayUnmap);

    /// <inheritdoc/>
    public void Submit(BlockRequest request)
    {
        if (request.Pages is not { } pages)
        {
            target.Submit(request);
            return;
        }

        InFlight++;
        request.PassThrough(this);
        Acquire(request, pages);
    }

    /// <inheritdoc/>
    public void Completed(BlockRequest request, DiskStatus status)
    {
        InFlight--;
        request.Pages!.Release();
        request.Complete(status);
        if (_closed is { } closed && InFlight == 0)
        {
            closed.TrySetResult();
        }
    }

    /// <inheritdoc/>
    void IBlockPageWaiter.PagesReady(BlockRequest request) => Acquire(request, request.Pages!);

    /// <summary>Waits until no request has pages any more.</summary>
    public ValueTask FlushAndCloseAsync()
    {
        if (InFlight == 0)
        {
            return default;
        }

        _closed ??= new TaskCompletionSource();
        return new ValueTask(_closed.Task);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        // It has nothing of its own: who disposes has waited for the end of what was submitted.
    }

    private void Acquire(BlockRequest request, PageLease pages)
    {
        DmaAccess access = request.Kind == BlockKind.Read ? DmaAccess.Write : DmaAccess.Read;
        switch (memory.TryAcquire(pages, access, request.WaitWith(this)))
        {
            case Acquired.Ready:
                request.SetData(pages.Vectors);
                target.Submit(request);
                break;
            case Acquired.Outside:
                request.Answer(DiskStatus.IoError); // its memory was unplugged since the chain was read
                break;
            default:
                break; // PagesReady comes
        }
    }
}
