using Vmm.Devices.Legacy;

namespace Vmm.Devices.Tests.Legacy;

public sealed class PvPanicTests
{
    [Fact]
    public void Reads_tell_the_known_events_and_writes_of_them_are_passed_on()
    {
        List<GuestPanicEvents> told = [];
        PvPanic device = new(told.Add);
        byte[] data = [0xFF, 0xFF];
        device.Read(0, data);
        Assert.Equal([3, 0], data);
        device.Write(0, [1]);
        device.Write(0, [2, 9]);
        device.Write(0, [0xF0]); // nothing we know
        device.Write(0, [0]);
        device.Write(0, [0xFF]);
        Assert.Equal(
            [GuestPanicEvents.Panicked, GuestPanicEvents.CrashLoaded, GuestPanicEvents.Panicked | GuestPanicEvents.CrashLoaded], told);
    }

    [Fact]
    public void Random_accesses_are_answered() => DeviceFuzz.Run(new PvPanic(_ => { }), 1, 19);
}
