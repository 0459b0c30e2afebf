namespace Vmm.Interop;

/// <summary>
/// The rings of this process. A process that gives up making more (a confined one) makes them beforehand, and uses each again and again:
/// what a ring of its own could do, no filter of system calls would see. Rings that only wait are kept apart from those that also reach
/// files. Any thread.
/// </summary>
public static class IoUringPool
{
    private static readonly Lock Gate = new();
    private static readonly Stack<IoUring> Waiting = [], Reaching = []; // by what they can do: wait only, or everything
    private static bool s_sealed;
    private static int s_waitingMade, s_reachingMade;

    /// <summary>
    /// Rings that nobody uses now and that can do <paramref name="operations"/>, and no more than is asked for when that is waiting.
    /// </summary>
    public static int IdleCount(RingOperations operations)
    {
        lock (Gate)
        {
            return Kept(operations).Count;
        }
    }

    /// <summary>
    /// How many rings there will ever be: those that only wait, and those that reach files, which stand in for the others. Null while more
    /// can be made.
    /// </summary>
    public static (int Waiting, int Files)? Limit
    {
        get
        {
            lock (Gate)
            {
                return s_sealed ? (s_waitingMade, s_reachingMade) : null;
            }
        }
    }

    /// <summary>Makes rings for later.</summary>
    /// <exception cref="IoUringUnavailableException">This process has no io_uring.</exception>
    /// <exception cref="KernelException">Out of memory or descriptors.</exception>
    public static void Add(int count, RingOperations operations)
    {
        for (int i = 0; i < count; i++)
        {
            IoUring ring = new(Widened(operations));
            lock (Gate)
            {
                Kept(operations).Push(ring);
                s_waitingMade += operations == RingOperations.Polls ? 1 : 0;
                s_reachingMade += operations == RingOperations.Polls ? 0 : 1;
            }
        }
    }

    /// <summary>Finds out whether there are rings at all.</summary>
    /// <exception cref="IoUringUnavailableException">This process has no io_uring.</exception>
    public static void Check()
    {
        lock (Gate)
        {
            if (s_waitingMade + s_reachingMade > 0)
            {
                return;
            }
        }

        new IoUring().Dispose();
    }

    /// <summary>From here on no ring is made, and none is given up.</summary>
    public static void Seal()
    {
        lock (Gate)
        {
            s_sealed = true;
        }
    }

    /// <summary>
    /// A ring for one thread, until <see cref="Return"/>. Where none that only waits is left, one that can do more takes its place.
    /// </summary>
    /// <exception cref="IoUringUnavailableException">This process has no io_uring.</exception>
    /// <exception cref="KernelException">ENOBUFS: all rings of a confined process are in use; or out of memory or descriptors.</exception>
    public static IoUring Rent(RingOperations operations = RingOperations.All)
    {
        lock (Gate)
        {
            if (Kept(operations).TryPop(out IoUring? ring) || Reaching.TryPop(out ring))
            {
                return ring;
            }

            if (s_sealed)
            {
                throw new KernelException("all I/O rings that this VM was started with are in use; another", Errno.ENOBUFS);
            }
        }

        return new IoUring(Widened(operations));
    }

    /// <summary>Takes a ring back, on the thread that used it. Nothing is in flight but polls, which are called off.</summary>
    public static void Return(IoUring ring)
    {
        ring.CancelPolls(); // a ring that is closed lets go of what it waits for some time later: a tap would be busy until then
        bool kept;
        lock (Gate)
        {
            kept = s_sealed;
        }

        if (!kept)
        {
            ring.Dispose();
            return;
        }

        lock (Gate)
        {
            Kept(ring.Operations).Push(ring);
        }
    }

    private static Stack<IoUring> Kept(RingOperations operations) => operations == RingOperations.Polls ? Waiting : Reaching;

    // A thread that reaches files has doorbells, too.
    private static RingOperations Widened(RingOperations operations) =>
        operations == RingOperations.Polls ? RingOperations.Polls : RingOperations.All;
}
