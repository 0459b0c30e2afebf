namespace Vmm.Memory.Paging;

/// <summary>
/// Which pages go. A hand goes round over all groups: pages that were not used since it came last are staged. A staged page that is touched
/// comes back at the price of a minor fault; what is still staged when its turn comes is cold, and goes to the store. Nothing is staged
/// while the guest fits below its limit, so that sampling costs nothing then. One thread steps; any thread wakes it.
/// </summary>
internal sealed class PageEvicter(ResidencyCache pages, PageMover mover) : IDisposable
{
    private const int IdleMilliseconds = 200, RetryMilliseconds = 1000;
    private const int GroupsPerStep = 32, LeastDropped = 1024;
    private readonly Queue<ulong> _staged = new();
    private readonly AutoResetEvent _wake = new(false);
    private ulong _hand, _dropHand;
    private ulong _fruitless; // groups that the hand passed without staging anything
    private long _retryAt;
    private long _target;
    private string? _stopped;

    /// <summary>Pages that stay resident.</summary>
    internal long Target
    {
        get => Volatile.Read(ref _target);
        set => Volatile.Write(ref _target, value);
    }

    /// <summary>Why nothing goes out; null when it does.</summary>
    internal string? Stopped => Volatile.Read(ref _stopped);

    /// <summary>Room below a limit that is kept free, so that a page that comes in need not wait for one to go: pages.</summary>
    internal static long SlackOf(long limit) => Math.Clamp(limit / 32, 256, 8192);

    /// <summary>Makes the next <see cref="Wait"/> return.</summary>
    internal void Wake() => _wake.Set();

    /// <summary>Waits until there may be something to do.</summary>
    internal void Wait() => _wake.WaitOne(IdleMilliseconds);

    /// <summary>Does one piece of work; false when there is none to do, or none that can be done now.</summary>
    internal bool Step(MoverRoom room)
    {
        if (Volatile.Read(ref pages.Board.Resident) <= Target || IsStopped())
        {
            return false;
        }

        // An eighth of the memory is on trial: long enough for a page that is in use to be touched.
        long pool = Math.Max(16 * ResidencyCache.GroupPages, Target / 8);
        bool staged = Volatile.Read(ref pages.Board.Staged) < pool && StageSome();
        bool wrote = (!staged || Volatile.Read(ref pages.Board.Staged) > pool / 2) && TryWriteOut(room);
        return staged || wrote;
    }

    /// <summary>After its thread ended.</summary>
    public void Dispose() => _wake.Dispose();

    private bool StageSome()
    {
        bool any = false;
        for (int i = 0; i < GroupsPerStep && _fruitless <= 2 * pages.Groups; i++)
        {
            int count = mover.Stage(_hand, spareUsed: true);
            if (count > 0)
            {
                _staged.Enqueue(_hand);
                any = true;
                _fruitless = 0;
            }
            else
            {
                _fruitless++;
            }

            _hand = (_hand + 1) % pages.Groups;
        }

        if (_fruitless > 2 * pages.Groups)
        {
            _fruitless = 0; // everything is in use: another time
            return any;
        }

        return any || _fruitless > 0;
    }

    private bool TryWriteOut(MoverRoom room)
    {
        while (_staged.TryDequeue(out ulong group))
        {
            try
            {
                long written = mover.PagesOut;
                if (mover.WriteOut(group, room) > 0)
                {
                    if (mover.PagesOut > written) // zeros went without a write
                    {
                        Volatile.Write(ref _stopped, null);
                    }

                    return true;
                }
            }
            catch (SwapStoreException cause)
            {
                _staged.Enqueue(group);
                if (cause.IsFull && DropKept() > 0)
                {
                    return true; // there is room again
                }

                _retryAt = Environment.TickCount64 + RetryMilliseconds;
                Volatile.Write(ref _stopped, cause.Message);
                return false;
            }
        }

        return false;
    }

    // Groups from the hand on, until some room is made.
    private int DropKept()
    {
        int dropped = 0;
        for (ulong i = 0; i < pages.Groups && mover.Kept > 0 && dropped < LeastDropped; i++)
        {
            _dropHand = (_dropHand + 1) % pages.Groups;
            dropped += mover.DropKept(_dropHand);
        }

        return dropped;
    }

    // What stopped it is told until a write succeeds again.
    private bool IsStopped() => Stopped is not null && Environment.TickCount64 < _retryAt;
}
