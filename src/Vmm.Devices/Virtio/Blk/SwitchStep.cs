using Vmm.Io;
using Vmm.Storage;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>One step of a <see cref="DiskSwitch"/> on one thread.</summary>
internal sealed class SwitchStep
{
    private bool _begun; // of the loop's thread

    /// <summary>Set when it is over. Not disposed: a thread may come late.</summary>
    private ManualResetEventSlim Over { get; } = new();

    /// <summary>How it ended.</summary>
    internal DiskStatus Status { get; private set; }

    /// <summary>What the host could not do.</summary>
    internal BlockException? Problem { get; set; }

    /// <summary>True once.</summary>
    internal bool TryBegin() => !_begun && (_begun = true);

    /// <summary>It is over.</summary>
    internal void End(DiskStatus status)
    {
        Status = status;
        Over.Set();
    }

    /// <summary>Waits for its end; false when that takes longer.</summary>
    internal bool Wait(TimeSpan patience) => Over.Wait(patience);
}

/// <summary>One flush of ours through a node that others use.</summary>
internal sealed class NodeFlush(IBlockNode node, IoLoop loop) : IBlockOwner
{
    private Action<DiskStatus>? _over;

    /// <summary>Begins. On the loop's thread.</summary>
    internal void Run(Action<DiskStatus> over)
    {
        _over = over;
        BlockRequest request = new(this);
        loop.Add(request);
        request.Prepare(BlockKind.Flush);
        node.Submit(request);
        loop.Submit();
    }

    public void Completed(BlockRequest request, DiskStatus status)
    {
        loop.Remove(request);
        _over!(status);
    }
}
