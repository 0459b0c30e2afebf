using Vmm.Io;

namespace Vmm.Storage;

/// <summary>What is left of a disk that could not be opened again: every request fails as the host's fault.</summary>
/// <param name="geometry">What the disk was like.</param>
/// <param name="files">Its files; owned.</param>
public sealed class LostDisk(in BlockGeometry geometry, IDisposable? files) : IDiskBackend
{
    /// <inheritdoc/>
    public BlockGeometry Geometry { get; } = geometry;

    /// <inheritdoc/>
    public IBlockNode CreateNode(IoLoop loop, int depth) => CreateNode(loop);

    /// <summary>Its node; that needs nothing of the host.</summary>
    public IBlockNode CreateNode(IoLoop loop) => new LostNode(Geometry, loop);

    /// <inheritdoc/>
    public void Dispose() => files?.Dispose();
}

/// <summary>Fails each request, by the next poll of the loop.</summary>
internal sealed class LostNode(BlockGeometry geometry, IoLoop loop) : IBlockNode, IBlockLeaf
{
    private TaskCompletionSource? _closed;

    public BlockGeometry Geometry => geometry;

    public int InFlight { get; private set; }

    public bool WritesZeroesAsData(bool mayUnmap) => false;

    public void Submit(BlockRequest request)
    {
        request.Run(this);
        InFlight++;
        loop.CompleteLater(request, (int)DiskStatus.IoError);
    }

    public void OnStep(BlockRequest request, int result)
    {
        InFlight--;
        request.Complete((DiskStatus)result);
        if (InFlight == 0)
        {
            _closed?.TrySetResult();
        }
    }

    /// <summary>It has nothing to flush.</summary>
    public ValueTask FlushAndCloseAsync()
    {
        if (InFlight == 0)
        {
            return default;
        }

        _closed ??= new TaskCompletionSource();
        return new ValueTask(_closed.Task);
    }

    public void Dispose() => this.WaitForAll(loop);
}
