using System.Diagnostics;
using Vmm.Io;

namespace Vmm.Devices.Virtio.Net;

/// <summary>
/// Moderation of wake-ups by frames of the host, as network cards moderate interrupts. Where looking for frames does not help
/// (<see cref="BusyPoll"/>: the sender has no other processor), each frame would wake the thread, at several times the cost of moving it.
/// After several sleeps in a row that a frame ended at once, the next sleep is a short one that frames do not end. Short sleeps go on while
/// they gather several frames; one that did not is taken for traffic that waits for its answers, and costs twice as many sleeps until the
/// next attempt. One thread.
/// </summary>
internal struct FrameGathering
{
    /// <summary>
    /// How long frames gather, in microseconds: some tens of frames when they come as fast as they can. io_uring adds no timer slack.
    /// </summary>
    public const int Microseconds = 70;

    private const int Worthwhile = 4, LeastStreak = 8, GreatestStreak = 1024;
    private static readonly long s_short = Stopwatch.Frequency * 20 / 1_000_000;

    private int _streak, _needed;
    private bool _gathered;

    /// <summary>The next sleep is to be one that frames do not end.</summary>
    public readonly bool Wanted => _streak > 0 && _streak >= Math.Max(LeastStreak, _needed);

    /// <summary>How many frames the host had.</summary>
    public void Received(int frames)
    {
        if (!_gathered)
        {
            return;
        }

        _gathered = false;
        if (frames >= Worthwhile)
        {
            _needed = LeastStreak;
        }
        else
        {
            _needed = Math.Min(GreatestStreak, 2 * Math.Max(LeastStreak, _needed));
            _streak = 0;
        }
    }

    /// <summary>A sleep that frames did not end is over; when something else ended it, what gathered says nothing.</summary>
    public void Gathered(bool toTheEnd) => _gathered = toTheEnd;

    /// <summary>An ordinary sleep of so many ticks of <see cref="Stopwatch"/> is over.</summary>
    public void Slept(long ticks, bool byFrame) => _streak = byFrame && ticks < s_short ? Math.Min(_streak + 1, GreatestStreak) : 0;
}
