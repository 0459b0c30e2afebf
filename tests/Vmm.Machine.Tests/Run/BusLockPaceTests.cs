using Vmm.Machine.Run;

namespace Vmm.Machine.Tests.Run;

public sealed class BusLockPaceTests
{
    private long _now;
    private long _slept;

    [Fact]
    public void A_guest_that_locks_the_bus_in_a_loop_is_held_to_the_rate()
    {
        BusLockPace pace = Pace();
        const int locks = 10 * BusLockPace.PerSecond;
        for (int i = 0; i < locks; i++)
        {
            pace.Wait(() => false);
        }

        // A tenth of a second's may go at once.
        Assert.InRange(_slept, 9_800, 10_000);
    }

    [Fact]
    public void A_vCPU_that_has_to_stop_waits_no_longer()
    {
        BusLockPace pace = Pace();
        for (int i = 0; i < 100 * BusLockPace.PerSecond; i++)
        {
            pace.Wait(() => true);
        }

        Assert.Equal(0, _slept);
    }

    private BusLockPace Pace() => new(() => _now, milliseconds =>
    {
        _slept += milliseconds;
        _now += milliseconds * 1_000_000L;
    });
}
