using Vmm.Devices.Virtio.Net;

namespace Vmm.Devices.Tests.Virtio.Net;

public sealed class TapChangePaceTests
{
    [Fact]
    public void A_driver_that_starts_does_not_wait_and_one_in_a_loop_is_held_to_the_rate()
    {
        long now = 0, slept = 0;
        TapChangePace pace = new(() => now, milliseconds =>
        {
            slept += milliseconds;
            now += milliseconds * 1_000_000L;
        });
        for (int i = 0; i < TapChangePace.Burst; i++)
        {
            pace.Wait();
        }

        Assert.Equal(0, slept);
        const int more = 200;
        for (int i = 0; i < more; i++)
        {
            pace.Wait();
        }

        Assert.InRange(slept, 1000L * more / TapChangePace.PerSecond, (1000L * more / TapChangePace.PerSecond) + 50);
    }
}
