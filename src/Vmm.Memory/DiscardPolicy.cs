namespace Vmm.Memory;

/// <summary>
/// Whether pages that the guest gives up may go back to the host now. A part that relies on pages staying where they are (a copy that runs,
/// a device that pinned them) inhibits it. The guest gets its normal answer all the same: the pages are kept, and counted. Any thread.
/// </summary>
public sealed class DiscardPolicy
{
    private readonly object _gate = new();
    private readonly List<Inhibition> _inhibitions = [];
    private int _running;
    private long _kept;

    /// <summary>Why pages are kept now; empty while they may go.</summary>
    public IReadOnlyList<string> Reasons
    {
        get
        {
            lock (_gate)
            {
                return [.. _inhibitions.Select(each => each.Reason)];
            }
        }
    }

    /// <summary>Bytes that were given up and kept so far, counted again when they are given up again.</summary>
    public long KeptBytes => Volatile.Read(ref _kept);

    /// <summary>From the return on no page goes, until what this returns is disposed. Waits for a discard that runs.</summary>
    /// <param name="reason">Who wants it and why, for people.</param>
    public IDisposable Inhibit(string reason)
    {
        Inhibition inhibition = new(this, reason);
        lock (_gate)
        {
            _inhibitions.Add(inhibition);
            while (_running > 0)
            {
                Monitor.Wait(_gate);
            }
        }

        return inhibition;
    }

    /// <summary>Asks before pages go. True: they may, and <see cref="End"/> follows. False: they stay, and are counted.</summary>
    /// <param name="length">Bytes.</param>
    public bool TryBegin(ulong length)
    {
        lock (_gate)
        {
            if (_inhibitions.Count > 0)
            {
                Volatile.Write(ref _kept, _kept + (long)Math.Min(length, long.MaxValue));
                return false;
            }

            _running++;
            return true;
        }
    }

    /// <summary>The pages are gone.</summary>
    public void End()
    {
        lock (_gate)
        {
            if (--_running == 0)
            {
                Monitor.PulseAll(_gate);
            }
        }
    }

    private void Remove(Inhibition inhibition)
    {
        lock (_gate)
        {
            _inhibitions.Remove(inhibition);
        }
    }

    private sealed class Inhibition(DiscardPolicy policy, string reason) : IDisposable
    {
        internal string Reason => reason;

        public void Dispose() => policy.Remove(this);
    }
}
