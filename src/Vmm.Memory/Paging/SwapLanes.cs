namespace Vmm.Memory.Paging;

/// <summary>Lanes for so many threads at once; others wait. The one that was used last is given first: its memory is at hand.</summary>
/// <param name="count">How many there will be.</param>
internal sealed class SwapLanes(int count)
{
    private readonly object _gate = new();
    private SwapLane? _first;
    private bool _isClosed;

    /// <summary>Adds a lane, or gives one back.</summary>
    internal void Return(SwapLane lane)
    {
        lock (_gate)
        {
            lane.Next = _first;
            _first = lane;
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Takes a lane, which is given back.</summary>
    /// <exception cref="ObjectDisposedException">The store is disposed.</exception>
    internal SwapLane Take()
    {
        lock (_gate)
        {
            while (_first is null && !_isClosed)
            {
                Monitor.Wait(_gate);
            }

            ObjectDisposedException.ThrowIf(_isClosed, typeof(SwapStore));
            return Pop();
        }
    }

    /// <summary>Gives none any more, and ends each when it is not used any more. Once.</summary>
    internal void Close()
    {
        lock (_gate)
        {
            _isClosed = true;
            Monitor.PulseAll(_gate);
            for (int i = 0; i < count; i++)
            {
                while (_first is null)
                {
                    Monitor.Wait(_gate);
                }

                Pop().Dispose();
            }
        }
    }

    private SwapLane Pop()
    {
        SwapLane lane = _first!;
        _first = lane.Next;
        return lane;
    }
}
