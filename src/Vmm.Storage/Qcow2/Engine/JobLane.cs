using Vmm.Io;

namespace Vmm.Storage.Qcow2;

/// <summary>What the thread of a job has: a loop, and one request at a time.</summary>
internal sealed class JobLane : IBlockOwner, IDisposable
{
    private readonly BlockRequest _request;
    private readonly Func<bool> _isOver;
    private DiskStatus? _status; // of the request that went last; null while it is in flight

    internal JobLane()
    {
        _isOver = () => _status is not null;
        _request = new BlockRequest(this);
        Loop.Add(_request);
    }

    /// <summary>Its loop.</summary>
    internal IoLoop Loop { get; } = new();

    /// <inheritdoc/>
    public void Completed(BlockRequest request, DiskStatus status) => _status = status;

    /// <summary>The request, prepared.</summary>
    internal BlockRequest Prepare(BlockKind kind, ulong offset = 0, uint length = 0, BlockFlags flags = BlockFlags.None)
    {
        _request.Prepare(kind, offset, length, flags);
        _status = null;
        return _request;
    }

    /// <summary>Waits for the request, which was submitted.</summary>
    internal DiskStatus Await()
    {
        Loop.DeliverUntil(_isOver); // a flush that another queue's flush served ends by a doorbell
        return _status!.Value;
    }

    /// <inheritdoc/>
    public void Dispose() => Loop.Dispose();
}
