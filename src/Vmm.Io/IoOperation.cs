namespace Vmm.Io;

/// <summary>
/// Something that an <see cref="IoLoop"/> completes: a request, a watch. It has one number in its loop, which is the tag in the ring, from
/// <see cref="IoLoop.Add"/> to <see cref="IoLoop.Remove"/>. One step of it is in flight at a time. Made once and used again and again.
/// </summary>
public abstract class IoOperation
{
    internal const int NotAdded = -1;

    /// <summary>The loop it belongs to; null when it was not added to any.</summary>
    public IoLoop? Loop { get; internal set; }

    /// <summary>Its number in the loop.</summary>
    public int Number { get; internal set; } = NotAdded;

    /// <summary>The next one that ended without the ring; see <see cref="IoLoop.CompleteLater"/>.</summary>
    internal IoOperation? NextReady { get; set; }

    /// <summary>What it ended with.</summary>
    internal int ReadyResult { get; set; }

    /// <summary>Does not count as work: a watch, which may be armed for ever.</summary>
    internal virtual bool IsWatch => false;

    /// <summary>The step in flight ended. On the loop's thread, never inside the call that began the step.</summary>
    /// <param name="result">Bytes moved or events of poll(2); or a negative errno.</param>
    protected internal abstract void OnCompleted(int result);
}
