namespace Vmm.Daemon.Replicas.Sending;

/// <summary>
/// How old the newest point at the other site is, was at worst in the last hour, and will be if all goes on so. It hears of points when
/// they are acknowledged, and of bytes when they are sent. Memory is bounded: an hour of minutes. For one thread at a time.
/// </summary>
/// <param name="time">The clock.</param>
internal sealed class PointClock(TimeProvider time)
{
    private const int Minutes = 61, Seconds = 61, Recent = 8;

    private readonly List<(DateTimeOffset Minute, double Worst)> _worst = [];
    private readonly List<(TimeSpan Between, TimeSpan Delay)> _recent = [];
    private readonly List<(DateTimeOffset Second, ulong Bytes)> _sent = [];
    private DateTimeOffset? _newest;

    /// <summary>When the newest point was cut; null without one.</summary>
    internal DateTimeOffset? Newest => _newest;

    /// <summary>How old it is; null without one.</summary>
    internal double? AgeSeconds => _newest is { } then ? Math.Max(0, (time.GetUtcNow() - then).TotalSeconds) : null;

    /// <summary>The oldest that it was in the last hour, or is now; 0 without one.</summary>
    internal double WorstAgeSeconds
    {
        get
        {
            Forget();
            return Math.Max(AgeSeconds ?? 0, _worst.Count == 0 ? 0 : _worst.Max(each => each.Worst));
        }
    }

    /// <summary>
    /// How old it is at worst if all goes on as with the last points: the time between two cuts and from a cut until its point is safe, the
    /// longest of each. Null while there were fewer than two points.
    /// </summary>
    internal double? PredictedAgeSeconds => _recent.Count == 0
        ? null
        : _recent.Max(each => each.Between).TotalSeconds + _recent.Max(each => each.Delay).TotalSeconds;

    /// <summary>Bytes sent in a second, in the last minute.</summary>
    internal double BytesPerSecond
    {
        get
        {
            Forget();
            return _sent.Aggregate(0.0, (sum, each) => sum + each.Bytes) / 60;
        }
    }

    /// <summary>The newest point at the other site, as it is found after a start: nothing is known of what was before.</summary>
    /// <param name="cut">When it was cut.</param>
    internal void Found(DateTimeOffset cut) => _newest = _newest > cut ? _newest : cut;

    /// <summary>A point is safe at the other site.</summary>
    /// <param name="cut">When it was cut.</param>
    internal void Arrived(DateTimeOffset cut)
    {
        if (_newest is { } before)
        {
            if (cut <= before)
            {
                return; // acknowledged again
            }

            // Until now that one was the newest.
            Worst((time.GetUtcNow() - before).TotalSeconds);
            Keep(_recent, Recent, (cut - before, time.GetUtcNow() - cut));
        }

        _newest = cut;
    }

    /// <summary>Bytes were sent.</summary>
    internal void Sent(ulong bytes)
    {
        DateTimeOffset second = Floor(time.GetUtcNow(), TimeSpan.TicksPerSecond);
        if (_sent.Count > 0 && _sent[^1].Second == second)
        {
            _sent[^1] = (second, _sent[^1].Bytes + bytes);
        }
        else
        {
            Keep(_sent, Seconds, (second, bytes));
        }
    }

    private static DateTimeOffset Floor(DateTimeOffset at, long ticks) => new(at.UtcTicks / ticks * ticks, TimeSpan.Zero);

    private static void Keep<T>(List<T> list, int most, T one)
    {
        list.Add(one);
        if (list.Count > most)
        {
            list.RemoveAt(0);
        }
    }

    private void Worst(double age)
    {
        DateTimeOffset minute = Floor(time.GetUtcNow(), TimeSpan.TicksPerMinute);
        if (_worst.Count > 0 && _worst[^1].Minute == minute)
        {
            _worst[^1] = (minute, Math.Max(age, _worst[^1].Worst));
        }
        else
        {
            Keep(_worst, Minutes, (minute, age));
        }
    }

    private void Forget()
    {
        DateTimeOffset now = time.GetUtcNow();
        _worst.RemoveAll(each => now - each.Minute > TimeSpan.FromHours(1));
        _sent.RemoveAll(each => now - each.Second > TimeSpan.FromMinutes(1));
    }
}
