namespace Vmm.Interop;

/// <summary>
/// The rings of this process. A process that gives up making more (a confined one) makes them beforehand, and uses each again and again: what a ring of
/// its own could do, no filter of system calls would see. Any thread.
/// </summary>
public static class IoUringPool
{
    private static readonly Lock Gate = new();
    private static readonly Stack<IoUring> Idle = [];
    private static bool s_sealed;
    private static int s_made;

    /// <summary>Rings that nobody uses now.</summary>
    public static int IdleCount
    {
        get
        {
            lock (Gate)
            {
                return Idle.Count;
            }
        }
    }

    /// <summary>How many there will ever be; null while more can be made.</summary>
    public static int? Limit
    {
        get
        {
            lock (Gate)
            {
                return s_sealed ? s_made : null;
            }
        }
    }

    /// <summary>Makes rings for later.</summary>
    /// <exception cref="IoUringUnavailableException">This process has no io_uring.</exception>
    /// <exception cref="KernelException">Out of memory or descriptors.</exception>
    public static void Add(int count)
    {
        for (int i = 0; i < count; i++)
        {
            IoUring ring = new();
            lock (Gate)
            {
                Idle.Push(ring);
                s_made++;
            }
        }
    }

    /// <summary>Finds out whether there are rings at all.</summary>
    /// <exception cref="IoUringUnavailableException">This process has no io_uring.</exception>
    public static void Check()
    {
        if (IdleCount == 0)
        {
            new IoUring().Dispose();
        }
    }

    /// <summary>From here on no ring is made, and none is given up.</summary>
    public static void Seal()
    {
        lock (Gate)
        {
            s_sealed = true;
        }
    }

    /// <summary>A ring for one thread, until <see cref="Return"/>.</summary>
    /// <exception cref="IoUringUnavailableException">This process has no io_uring.</exception>
    /// <exception cref="KernelException">ENOBUFS: all rings of a confined process are in use; or out of memory or descriptors.</exception>
    public static IoUring Rent()
    {
        lock (Gate)
        {
            if (Idle.TryPop(out IoUring? ring))
            {
                return ring;
            }

            if (s_sealed)
            {
                throw new KernelException("all I/O rings that this VM was started with are in use; another", Errno.ENOBUFS);
            }
        }

        return new IoUring();
    }

    /// <summary>Takes a ring back, on the thread that used it. Nothing is in flight but polls, which are called off.</summary>
    public static void Return(IoUring ring)
    {
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

        ring.CancelPolls();
        lock (Gate)
        {
            Idle.Push(ring);
        }
    }
}
