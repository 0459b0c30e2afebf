using Vmm.Io;

namespace Vmm.Storage;

/// <summary>
/// A leaf without waiting: it executes a request as it is submitted, which ends by the next poll of the loop, as everywhere. Nothing in it
/// is more stable than the process.
/// </summary>
internal abstract class InstantNode(IDiskBackend disk, IoLoop loop) : IBlockNode, IBlockLeaf
{
    private TaskCompletionSource? _closed;

    public BlockGeometry Geometry => disk.Geometry;

    public int InFlight { get; private set; }

    public abstract bool WritesZeroesAsData(bool mayUnmap);

    public void Submit(BlockRequest request)
    {
        request.Run(this);
        InFlight++;
        loop.CompleteLater(request, (int)Execute(request));
    }

    public void OnStep(BlockRequest request, int result)
    {
        InFlight--;
        request.Complete((DiskStatus)result);
        if (_closed is { } closed && InFlight == 0)
        {
            closed.TrySetResult();
        }
    }

    /// <summary>Waits for what is in flight.</summary>
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

    /// <summary>Carries out a request that moves or drops bytes inside the disk.</summary>
    protected abstract DiskStatus Move(BlockRequest request);

    private DiskStatus Execute(BlockRequest request) => request.Kind switch
    {
        BlockKind.Flush => DiskStatus.Ok,
        BlockKind.None => DiskStatus.NotSupported,
        _ => request.IsInside(Geometry) ? Move(request) : DiskStatus.IoError,
    };
}
