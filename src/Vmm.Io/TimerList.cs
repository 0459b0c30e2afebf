using System.Diagnostics;

namespace Vmm.Io;

/// <summary>The timers of one loop. Belongs to the loop's thread.</summary>
internal sealed class TimerList
{
    private readonly List<IoTimer> _timers = [];

    /// <summary>True when there is one, set or not.</summary>
    internal bool Any => _timers.Count > 0;

    internal void Add(IoTimer timer) => _timers.Add(timer);

    internal void Remove(IoTimer timer) => _timers.Remove(timer);

    /// <summary>Runs what is due; how many.</summary>
    internal int FireDue()
    {
        long now = Stopwatch.GetTimestamp();
        int fired = 0;
        for (int i = 0; i < _timers.Count; i++)
        {
            fired += _timers[i].FireIfDue(now) ? 1 : 0;
        }

        return fired;
    }

    /// <summary>Milliseconds until the first is due, rounded up; 0 when it is due, -1 when none is set.</summary>
    internal int TimeLeft()
    {
        long first = 0;
        foreach (IoTimer timer in _timers)
        {
            first = timer.Deadline != 0 && (first == 0 || timer.Deadline < first) ? timer.Deadline : first;
        }

        if (first == 0)
        {
            return -1;
        }

        long left = first - Stopwatch.GetTimestamp();
        return left <= 0 ? 0 : (int)Math.Min(((left * 1000) + Stopwatch.Frequency - 1) / Stopwatch.Frequency, int.MaxValue);
    }
}
