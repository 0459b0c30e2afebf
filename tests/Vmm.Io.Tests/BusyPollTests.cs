using System.Diagnostics;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Io;

namespace Vmm.Io.Tests;

public sealed class BusyPollTests
{
    private const int Microseconds = 50;
    private static readonly long s_window = Stopwatch.Frequency * Microseconds / 1_000_000;
    private static readonly long s_short = s_window / 5, s_long = s_window * 1000;

    [Fact]
    public void Looking_ends_after_the_window_and_does_not_begin_again_before_a_short_sleep()
    {
        BusyPoll poll = new(Microseconds);
        Assert.True(poll.LookAgain(1000));
        Assert.True(poll.LookAgain(1000 + s_window - 1));
        Assert.False(poll.LookAgain(1000 + s_window));
        for (int i = 0; i < 5; i++)
        {
            poll.Slept(s_long);
            Assert.False(poll.LookAgain(0));
        }

        poll.Slept(s_short);
        Assert.True(poll.LookAgain(7));
    }

    [Fact]
    public void Looking_that_finds_work_goes_on_and_each_look_has_the_whole_window()
    {
        BusyPoll poll = new(Microseconds);
        for (long now = 1; now < 100 * s_window; now += s_window / 2)
        {
            Assert.True(poll.LookAgain(now));
            Assert.True(poll.LookAgain(now + (s_window / 2) - 1));
            poll.Worked();
        }
    }

    [Fact]
    public void Looking_in_vain_before_short_sleeps_becomes_rare()
    {
        BusyPoll poll = new(Microseconds);
        int looked = 0;
        const int sleeps = 10_000;
        for (int i = 0; i < sleeps; i++)
        {
            looked += poll.LookAgain(1) ? 1 : 0;
            _ = poll.LookAgain(1 + s_window);
            poll.Slept(s_short);
        }

        Assert.InRange(looked, sleeps / (BusyPoll.MostSkipped + 2), (sleeps / BusyPoll.MostSkipped) + 10);
        while (!poll.LookAgain(1))
        {
            poll.Slept(s_short);
        }

        poll.Worked(); // it helps again: no need to be careful any more
        Assert.True(poll.LookAgain(1));
        _ = poll.LookAgain(1 + s_window);
        poll.Slept(s_short);
        poll.Slept(s_short);
        poll.Slept(s_short);
        Assert.True(poll.LookAgain(1));
    }

    [Fact]
    public void Without_a_window_nobody_looks()
    {
        BusyPoll poll = new(0);
        Assert.False(poll.LookAgain(1));
        poll.Slept(0);
        Assert.False(poll.LookAgain(1));
    }

    [Fact]
    public void Whatever_happens_no_look_is_longer_than_the_window() =>
        Prop.ForAll(Gen.Choose(0, 3).ListOf().ToArbitrary(), steps =>
        {
            BusyPoll poll = new(Microseconds);
            long now = 1, since = 0;
            foreach (int step in steps)
            {
                now += s_window / 3;
                if (step == 0)
                {
                    poll.Worked();
                    since = 0;
                }
                else if (poll.LookAgain(now))
                {
                    since = since == 0 ? now : since;
                    if (now - since >= s_window)
                    {
                        return false;
                    }
                }
                else
                {
                    poll.Slept(step == 1 ? s_short : s_long);
                    since = 0;
                }
            }

            return true;
        }).QuickCheckThrowOnFailure();
}
