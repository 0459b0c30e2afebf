using System.Diagnostics;

namespace Vmm.Io;

/// <summary>
/// How long an I/O thread looks for work before it sleeps. A sleep costs the other side a doorbell (an exit) and a wake-up, so a short one
/// is worth sparing; but looking takes a processor, which may be the very one that the guest or the sender of the next frame waits for. So
/// a thread looks only after a sleep that looking would have spared, and each time it looked in vain before a short sleep it leaves more of
/// them alone (at most <see cref="MostSkipped"/>). One thread.
/// </summary>
public struct BusyPoll(int microseconds)
{
    /// <summary>Short sleeps between two attempts when looking never helps.</summary>
    public const int MostSkipped = 64;

    private readonly long _longest = Stopwatch.Frequency * microseconds / 1_000_000;
    private long _until;
    private int _skip, _penalty;
    private bool _idle = microseconds <= 0;

    /// <summary>There was work: a look that found it was worth its time.</summary>
    public void Worked()
    {
        if (_until != 0)
        {
            _until = 0;
            _penalty = 0;
        }
    }

    /// <summary>There was no work: true to look again, false to sleep. <paramref name="now"/> is of <see cref="Stopwatch"/>.</summary>
    public bool LookAgain(long now)
    {
        if (_idle)
        {
            return false;
        }

        if (_until == 0)
        {
            _until = now + _longest;
        }

        return now < _until;
    }

    /// <summary>The thread slept for so long, in ticks of <see cref="Stopwatch"/>.</summary>
    public void Slept(long ticks)
    {
        bool wouldHaveHelped = ticks < _longest, looked = _until != 0;
        _until = 0;
        if (looked)
        {
            // Work came only when the processor was free for it, or much later.
            _idle = true;
            _penalty = wouldHaveHelped ? Math.Min(MostSkipped, Math.Max(1, 2 * _penalty)) : _penalty;
            _skip = _penalty;
        }
        else if (wouldHaveHelped && _longest > 0)
        {
            _idle = --_skip >= 0;
        }
    }
}
