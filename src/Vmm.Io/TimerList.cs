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
        long now = 0; // a look at the clock only when one is set
        int fired = 0;
        for (int i = 0; i < _timers.Count; i++)
        {
            if (_timers[i].Deadline != 0)
            {
                now = now == 0 ? Stopwatch.GetTimestamp() : now;
                fired += _timers[i].FireIfDue(now) ? 1 : 0;
            }
        }

        return fired;
    }

    /// <summary>Nanoseconds until the first is due; 0 when it is due, -1 when none is set.</summary>
    internal long NanosecondsLeft()
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

        return Math.Max(0, (first - Stopwatch.GetTimestamp()) * (1_000_000_000 / Stopwatch.Frequency));
    }
}
