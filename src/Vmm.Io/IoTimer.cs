namespace Vmm.Io;

/// <summary>
/// A timer of one loop, made by <see cref="IoLoop.AddTimer"/>. Set and fired on the loop's thread; fires once each time it is set.
/// </summary>
public sealed class IoTimer
{
    private readonly Action _fired;

    internal IoTimer(Action fired) => _fired = fired;

    /// <summary>When it fires, in ticks of <see cref="System.Diagnostics.Stopwatch"/>; 0 when it is not set.</summary>
    internal long Deadline { get; private set; }

    /// <summary>Fires after so many milliseconds, instead of when it was to fire before.</summary>
    public void Set(int milliseconds) => SetMicroseconds(milliseconds * 1000L);

    /// <summary>The same in microseconds.</summary>
    public void SetMicroseconds(long microseconds) =>
        Deadline = System.Diagnostics.Stopwatch.GetTimestamp() + (microseconds * System.Diagnostics.Stopwatch.Frequency / 1_000_000);

    /// <summary>Does not fire any more.</summary>
    public void Clear() => Deadline = 0;

    internal bool FireIfDue(long now)
    {
        if (now < Deadline)
        {
            return false;
        }

        Deadline = 0;
        _fired();
        return true;
    }
}
