namespace Vmm.Daemon.Tests;

/// <summary>A clock that stands still until it is advanced.</summary>
internal sealed class FakeTime : TimeProvider
{
    private long _now;

    public override long TimestampFrequency => TimeSpan.TicksPerSecond;

    public override long GetTimestamp() => _now;

    internal void Advance(TimeSpan by) => _now += by.Ticks;
}
