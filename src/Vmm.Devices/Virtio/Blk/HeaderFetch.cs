using Vmm.Io;
using Vmm.Memory;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// What a queue has to read of a chain before it takes it (its header, an indirect table), and where the answer goes: when a page of that
/// is out, the chain stays in the ring while the page comes, and is parsed again then. The queue's requests that storage has go on. One at
/// a time, on the loop's thread.
/// </summary>
internal sealed class HeaderFetch(DmaSpace memory, IoLoop loop) : IPageWaiter
{
    private readonly PageLease _lease = new(1);
    private volatile Stage _stage; // Waiting becomes Came on a thread of the pager

    private enum Stage
    {
        /// <summary>Nothing is wanted.</summary>
        Free,

        /// <summary>A page is on its way.</summary>
        Waiting,

        /// <summary>It came.</summary>
        Came,
    }

    /// <summary>A page is on its way: the queue takes nothing.</summary>
    internal bool IsWaiting => _stage == Stage.Waiting;

    /// <summary>True when a range is there, or no memory; false: its pages come, and the loop serves again then.</summary>
    internal bool TryFetch(GuestRange range)
    {
        _stage = Stage.Waiting;
        Acquired answer = memory.TryAcquire(range, DmaAccess.Read, _lease, this);
        if (answer == Acquired.Pending)
        {
            return false;
        }

        _lease.Release();
        _stage = Stage.Free;
        return true;
    }

    /// <summary>Before a chain is taken: ends the wait for what came.</summary>
    internal void End()
    {
        if (_stage == Stage.Came)
        {
            _stage = Stage.Waiting;
            if (memory.TryAcquire(_lease, DmaAccess.Read, this) != Acquired.Pending)
            {
                _lease.Release(); // it was used lately: it stays long enough to be parsed
                _stage = Stage.Free;
            }
        }
    }

    /// <inheritdoc/>
    public void PagesReady(PageLease lease)
    {
        _stage = Stage.Came;
        loop.Post(static () => { }); // a round of the loop serves the queue
    }
}
