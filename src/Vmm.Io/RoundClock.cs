using System.Diagnostics;

namespace Vmm.Io;

/// <summary>
/// The time of the rounds of a loop: what happens in one of them happens at about one time, so that the clock is looked at once a round at
/// most, and not at all when somebody did at the end of the round before. One thread.
/// </summary>
internal struct RoundClock
{
    private uint _timedRound, _lookedRound;
    private long _time, _looked;

    /// <summary>Ticks of <see cref="Stopwatch"/> in a round.</summary>
    internal long Time(uint round)
    {
        if (_timedRound != round || _time == 0)
        {
            (_timedRound, _time) = (round, _looked != 0 && _lookedRound + 1 == round ? _looked : Stopwatch.GetTimestamp());
        }

        return _time;
    }

    /// <summary>Somebody looked at the clock just now.</summary>
    internal void Looked(uint round, long now) => (_lookedRound, _looked) = (round, now);

    /// <summary>Time goes by that belongs to no round: a sleep.</summary>
    internal void Forget() => _looked = 0;
}
