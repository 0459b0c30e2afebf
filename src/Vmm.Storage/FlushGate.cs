using Vmm.Interop;

namespace Vmm.Storage;

/// <summary>What a node does with a request that waited for a flush of the file.</summary>
internal enum FlushStep : byte
{
    /// <summary>None of its requests is due.</summary>
    None,

    /// <summary>The request flushes the file, for all that waited with it.</summary>
    Flush,

    /// <summary>Another one flushed the file for it.</summary>
    Served,

    /// <summary>That flush failed, or the one before it.</summary>
    Lost,
}

/// <summary>
/// One flush of a file is in flight at a time, over all queues of the disk. The kernel tells a lost write to one fsync only: one beside it
/// would say that all is well (fsync(2)). A flush that comes meanwhile waits for the next one, which is for all that wait. Thread-safe; a
/// flush that meets no other costs two exchanges of a word, and the lock is never held across I/O.
/// </summary>
internal sealed class FlushGate
{
    private const int Idle = 0, Flushing = 1, Shared = 2; // Shared: who ends the flush has to look for others

    private readonly Lock _lock = new();
    private readonly List<FlushTurn> _turns = [];
    private int _state;

    /// <summary>A node takes part; <paramref name="bell"/> is rung when one of its requests is due.</summary>
    internal FlushTurn Join(EventFd bell)
    {
        FlushTurn turn = new(bell);
        lock (_lock)
        {
            _turns.Add(turn);
        }

        return turn;
    }

    /// <summary>A node is gone; none of its requests waits.</summary>
    internal void Leave(FlushTurn turn)
    {
        lock (_lock)
        {
            _turns.Remove(turn);
        }
    }

    /// <summary>True: the request flushes the file now, and <see cref="End"/> follows. False: it waits (<see cref="Take"/>).</summary>
    internal bool TryBegin(FlushTurn turn, BlockRequest request)
    {
        if (Interlocked.CompareExchange(ref _state, Flushing, Idle) == Idle)
        {
            return true;
        }

        lock (_lock)
        {
            while (Interlocked.CompareExchange(ref _state, Shared, Flushing) == Idle)
            {
                if (Interlocked.CompareExchange(ref _state, Flushing, Idle) == Idle)
                {
                    return true; // it ended just now
                }
            }

            turn.Waiting.Add(request);
            return false;
        }
    }

    /// <summary>
    /// The flush of a node is over. Who waited for it is served; who came since gets the next one, or hears of the failure: then there is
    /// no next one.
    /// </summary>
    internal void End(FlushTurn own, bool failed)
    {
        if (Interlocked.CompareExchange(ref _state, Idle, Flushing) == Flushing)
        {
            return;
        }

        lock (_lock)
        {
            FlushTurn? next = null;
            foreach (FlushTurn turn in _turns)
            {
                bool isDue = turn.Finish(failed);
                if (turn.Merge())
                {
                    next = turn == own ? own : next ?? turn;
                }

                if (isDue && turn != own)
                {
                    turn.Bell.Signal();
                }
            }

            if (next is null)
            {
                Volatile.Write(ref _state, Idle);
                return;
            }

            next.Lead = next.Merged.Take();
            if (next != own)
            {
                next.Bell.Signal();
            }
        }
    }

    /// <summary>The node's next request that is due.</summary>
    internal FlushStep Take(FlushTurn turn, out BlockRequest request)
    {
        lock (_lock)
        {
            (BlockRequest? due, FlushStep step) = turn.Lead is { } lead ? (lead, FlushStep.Flush)
                : turn.Served.Take() is { } served ? (served, FlushStep.Served)
                : (turn.Lost.Take(), FlushStep.Lost);
            turn.Lead = null;
            request = due!;
            return due is null ? FlushStep.None : step;
        }
    }

    /// <summary>True when requests of the node wait for others.</summary>
    internal bool AnyWaits(FlushTurn turn)
    {
        lock (_lock)
        {
            return turn.AnyWaits;
        }
    }
}

/// <summary>Requests of one node at a <see cref="FlushGate"/>. Under its lock.</summary>
internal sealed class FlushTurn(EventFd bell)
{
    /// <summary>Came while a flush was in flight; wait for the one that is; ended well; ended badly.</summary>
    internal RequestList Waiting, Merged, Served, Lost;

    /// <summary>Wakes the node's loop.</summary>
    internal EventFd Bell { get; } = bell;

    /// <summary>The request that flushes next.</summary>
    internal BlockRequest? Lead { get; set; }

    /// <summary>Some are not due.</summary>
    internal bool AnyWaits => Waiting.Count + Merged.Count > 0;

    /// <summary>The flush is over; true when a request is due by that.</summary>
    internal bool Finish(bool failed)
    {
        bool any = Merged.Count > 0 || (failed && Waiting.Count > 0);
        while (Merged.Take() is { } request)
        {
            (failed ? ref Lost : ref Served).Add(request);
        }

        while (failed && Waiting.Take() is { } request)
        {
            Lost.Add(request);
        }

        return any;
    }

    /// <summary>Those that waited are for the next flush; false without any.</summary>
    internal bool Merge()
    {
        (Merged, Waiting) = (Waiting, default);
        return Merged.Count > 0;
    }
}
