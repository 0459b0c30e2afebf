using Vmm.Daemon.Replicas.Sending;

namespace Vmm.Daemon.Tests.Replicas;

public sealed class PointClockTests
{
    private readonly StandingTime _time = new();
    private readonly PointClock _clock;

    public PointClockTests() => _clock = new PointClock(_time);

    [Fact]
    public void Nothing_is_said_of_a_site_without_points()
    {
        Assert.Null(_clock.Newest);
        Assert.Null(_clock.AgeSeconds);
        Assert.Null(_clock.PredictedAgeSeconds);
        Assert.Equal(0, _clock.WorstAgeSeconds);
    }

    /// <summary>Every 30 s a cut, safe 4 s later: the newest point is 34 s old at worst, just before the next one is safe.</summary>
    [Fact]
    public void Ages_are_those_of_a_steady_link()
    {
        for (int i = 0; i < 5; i++)
        {
            DateTimeOffset cut = _time.GetUtcNow();
            _time.Advance(4);
            _clock.Arrived(cut);
            Assert.Equal(4, _clock.AgeSeconds);
            _time.Advance(26);
        }

        Assert.Equal(30, _clock.AgeSeconds);
        Assert.Equal(34, _clock.WorstAgeSeconds);
        Assert.Equal(34, _clock.PredictedAgeSeconds);
    }

    [Fact]
    public void A_lost_link_is_the_worst_age_for_an_hour_and_then_forgotten()
    {
        _clock.Arrived(_time.GetUtcNow());
        _time.Advance(600);
        Assert.Equal(600, _clock.WorstAgeSeconds);
        for (int i = 0; i < 59; i++)
        {
            _clock.Arrived(_time.GetUtcNow());
            Assert.Equal(600, _clock.WorstAgeSeconds);
            _time.Advance(60);
        }

        _time.Advance(60);
        _clock.Arrived(_time.GetUtcNow());
        _time.Advance(60);
        Assert.Equal(120, _clock.WorstAgeSeconds);
    }

    /// <summary>A point that is acknowledged again, or an older one, changes nothing.</summary>
    [Fact]
    public void An_older_point_does_not_make_the_newest_one_older()
    {
        DateTimeOffset first = _time.GetUtcNow();
        _time.Advance(10);
        _clock.Arrived(_time.GetUtcNow());
        DateTimeOffset? newest = _clock.Newest;
        _clock.Arrived(first);
        _clock.Found(first);
        Assert.Equal(newest, _clock.Newest);
    }

    [Fact]
    public void The_rate_is_that_of_the_last_minute()
    {
        _clock.Sent(600);
        _clock.Sent(600);
        Assert.Equal(20, _clock.BytesPerSecond);
        _time.Advance(59);
        _clock.Sent(1200);
        Assert.Equal(40, _clock.BytesPerSecond);
        _time.Advance(2);
        Assert.Equal(20, _clock.BytesPerSecond);
        _time.Advance(60);
        Assert.Equal(0, _clock.BytesPerSecond);
    }

    /// <summary>Whatever happens in whatever order, no age is negative, and the worst one is none that is less than the age.</summary>
    [Fact]
    public void Ages_are_sound_whatever_happens()
    {
        Random random = new(1);
        for (int i = 0; i < 5000; i++)
        {
            _time.Advance(random.Next(0, 200));
            switch (random.Next(3))
            {
                case 0:
                    _clock.Arrived(_time.GetUtcNow() - TimeSpan.FromSeconds(random.Next(-5, 500)));
                    break;
                case 1:
                    _clock.Sent((ulong)random.Next());
                    break;
                default:
                    _clock.Found(_time.GetUtcNow() - TimeSpan.FromSeconds(random.Next(0, 5000)));
                    break;
            }

            double age = _clock.AgeSeconds ?? 0;
            Assert.True(age >= 0 && _clock.WorstAgeSeconds >= age && !(_clock.PredictedAgeSeconds < 0) && _clock.BytesPerSecond >= 0);
        }
    }

    /// <summary>A clock that stands still until it is advanced, from a whole minute on.</summary>
    private sealed class StandingTime : TimeProvider
    {
        private DateTimeOffset _now = new(2026, 12, 1, 10, 0, 0, TimeSpan.Zero);

        public override DateTimeOffset GetUtcNow() => _now;

        internal void Advance(int seconds) => _now += TimeSpan.FromSeconds(seconds);
    }
}
