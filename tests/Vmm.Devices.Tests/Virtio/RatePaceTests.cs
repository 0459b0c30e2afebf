using Vmm.Devices.Virtio;

namespace Vmm.Devices.Tests.Virtio;

public sealed class RatePaceTests
{
    private long _now;
    private long _slept;

    [Fact]
    public void A_burst_does_not_wait_and_a_loop_is_held_to_the_rate()
    {
        RatePace pace = Pace(perSecond: 20, burst: 64);
        Repeat(64, () => pace.Wait());
        Assert.Equal(0, _slept);
        Repeat(200, () => pace.Wait());
        Assert.InRange(_slept, 10_000, 10_050);
    }

    [Fact]
    public void Without_a_burst_a_tenth_of_a_seconds_goes_at_once()
    {
        RatePace pace = Pace(perSecond: 1000, burst: 0);
        Repeat(10_000, () => pace.Wait(() => false));
        Assert.InRange(_slept, 9_800, 10_000);
    }

    [Fact]
    public void Who_has_to_stop_waits_no_longer()
    {
        RatePace pace = Pace(perSecond: 1000, burst: 0);
        Repeat(100_000, () => pace.Wait(() => true));
        Assert.Equal(0, _slept);
    }

    private static void Repeat(int times, Action action)
    {
        for (int i = 0; i < times; i++)
        {
            action();
        }
    }

    private RatePace Pace(ulong perSecond, ulong burst) => new(perSecond, burst, () => _now, milliseconds =>
    {
        _slept += milliseconds;
        _now += milliseconds * 1_000_000L;
    });
}
