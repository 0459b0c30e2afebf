using System.Runtime.CompilerServices;
using Vmm.Interop;

namespace Vmm.Memory.Paging;

/// <summary>
/// Which groups of pages transfers use, and how many pages that are: a lane a thread, summed by who has to know. So a transfer does not
/// lock anything, and who takes pages away pays for it, by <see cref="Fence"/>. Any thread.
/// </summary>
internal sealed class PinTable : IDisposable
{
    /// <summary>Threads with a lane of their own; the first lane is for all others.</summary>
    internal const int MostLanes = 32;

    [ThreadStatic]
    private static Hold? t_hold;

    private readonly Lock _gate = new();
    private readonly ulong _groups;
    private readonly PinLane[] _lanes = new PinLane[1 + MostLanes];
    private int _count = 1; // lanes that there are
    private long _told; // pages pinned, as far as the lanes told
    private int _batch = 1;

    /// <param name="groups">How many groups there are.</param>
    /// <exception cref="KernelException">Out of memory.</exception>
    internal PinTable(ulong groups)
    {
        _groups = groups;
        _lanes[0] = new PinLane(groups, isShared: true);
    }

    /// <summary>The lane of no thread.</summary>
    internal PinLane Shared => _lanes[0];

    /// <summary>The lane of the calling thread, or the shared one.</summary>
    internal PinLane Mine
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => t_hold is { } hold && ReferenceEquals(hold.Table, this) ? hold.Lane : Take();
    }

    /// <summary>Pages that a lane may have pinned without telling: what <see cref="Use"/> answers is wrong by so many for each other lane.
    /// </summary>
    internal int Batch
    {
        get => Volatile.Read(ref _batch);
        set => Volatile.Write(ref _batch, Math.Max(1, value));
    }

    /// <summary>Pages pinned by transfers now.</summary>
    internal long InUse
    {
        get
        {
            long sum = Volatile.Read(ref _told);
            for (int i = 0, count = Volatile.Read(ref _count); i < count; i++)
            {
                sum += Volatile.Read(ref _lanes[i].Untold);
            }

            return sum;
        }
    }

    /// <summary>Transfers that found their pages.</summary>
    internal long Hits
    {
        get
        {
            long sum = 0;
            for (int i = 0, count = Volatile.Read(ref _count); i < count; i++)
            {
                sum += Volatile.Read(ref _lanes[i].Hits);
            }

            return sum;
        }
    }

    /// <summary>
    /// Between a claim of pages and the look at who uses them: from the return on every pin that a thread made before it looked at the
    /// states is seen here. The pin is a plain store, which a processor may do after the look that follows it; this makes every processor
    /// that runs this process finish its stores first (membarrier(2)). So a transfer needs no locked operation, and still at least one of
    /// the two sees the other.
    /// </summary>
#pragma warning disable CA1822 // It is about this table.
    internal void Fence() => Interlocked.MemoryBarrierProcessWide();
#pragma warning restore CA1822

    /// <summary>Pins of a group: 0 only when there was a moment without any, lane by lane.</summary>
    /// <param name="group">The group.</param>
    /// <param name="turn">Called between any two looks: a test's threads take turns there.</param>
    internal uint Pins(ulong group, Action? turn)
    {
        uint sum = 0;
        for (int i = 0, count = Volatile.Read(ref _count); i < count; i++)
        {
            sum += _lanes[i].Pins(group, turn);
        }

        return sum;
    }

    /// <summary>Counts pages that a lane pins, on its thread.</summary>
    /// <returns>Pages pinned by all transfers; those of other lanes as far as they told.</returns>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal long Use(PinLane lane, long pages)
    {
        if (lane.IsShared)
        {
            return Interlocked.Add(ref _told, pages);
        }

        long untold = lane.Untold + pages;
        if (Math.Abs(untold) <= _batch)
        {
            Volatile.Write(ref lane.Untold, untold);
            return untold + Volatile.Read(ref _told);
        }

        return Tell(lane, untold);
    }

    /// <summary>Ends <see cref="Use"/>.</summary>
    /// <param name="lane">The lane that the pages are pinned in.</param>
    /// <param name="pages">How many.</param>
    /// <param name="isOwn">The calling thread is that of the lane.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void EndUse(PinLane lane, long pages, bool isOwn)
    {
        if (isOwn)
        {
            Use(lane, -pages);
        }
        else
        {
            Interlocked.Add(ref _told, -pages);
        }
    }

    /// <summary>Whether a lane is the calling thread's own.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static bool IsOwn(PinLane lane) => t_hold is { } hold && ReferenceEquals(hold.Lane, lane);

    /// <summary>Counts a transfer that found its pages.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void CountHit(PinLane lane)
    {
        if (lane.IsShared)
        {
            Interlocked.Increment(ref lane.Hits);
        }
        else
        {
            Volatile.Write(ref lane.Hits, lane.Hits + 1);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_gate)
        {
            for (int i = 0; i < _count; i++)
            {
                _lanes[i].Dispose();
            }
        }
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private long Tell(PinLane lane, long untold)
    {
        // Who sums meanwhile may miss the pages or count them twice: it is a limit, and the next look is right.
        Volatile.Write(ref lane.Untold, 0);
        return Interlocked.Add(ref _told, untold);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private PinLane Take()
    {
        t_hold?.End(); // it serves another guest now: a test
        PinLane lane = Shared;
        lock (_gate)
        {
            for (int i = 1; i <= MostLanes && lane.IsShared; i++)
            {
                if (i == _count)
                {
                    _lanes[i] = new PinLane(_groups, isShared: false);
                    Volatile.Write(ref _count, i + 1);
                }

                if (_lanes[i].TryTake())
                {
                    lane = _lanes[i];
                }
            }
        }

        t_hold = new Hold(this, lane);
        return lane;
    }

    /// <summary>A thread and its lane. When the thread has ended, the finalizer lets another thread have the lane.</summary>
    private sealed class Hold(PinTable table, PinLane lane)
    {
        private int _isOver; // it is given back once: somebody else may have it then

        ~Hold() => End();

        internal PinTable Table => table;

        internal PinLane Lane => lane;

        internal void End()
        {
            if (!lane.IsShared && Interlocked.Exchange(ref _isOver, 1) == 0)
            {
                lane.GiveBack();
            }
        }
    }
}
