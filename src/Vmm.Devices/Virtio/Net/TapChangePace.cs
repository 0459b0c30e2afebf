namespace Vmm.Devices.Virtio.Net;

/// <summary>
/// How often a guest may have its tap changed (offloads, queues attached and detached): each change takes the lock that all network configuration of the
/// host shares (RTNL). A driver makes a handful when it starts; one that does it in a loop waits here, and only that guest does.
/// </summary>
internal sealed class TapChangePace
{
    /// <summary>Changes a second, in the long run.</summary>
    internal const int PerSecond = 20;

    /// <summary>Changes at once after a pause: a driver that starts with eight queue pairs, several times over.</summary>
    internal const int Burst = 64;

    private readonly RateLimiter _limiter;
    private readonly Func<long> _now;
    private readonly Action<int> _sleep;

    /// <param name="now">Nanoseconds; the clock of <see cref="RateLimiter"/> when null.</param>
    /// <param name="sleep">Waits so many milliseconds; the thread sleeps when null.</param>
    internal TapChangePace(Func<long>? now = null, Action<int>? sleep = null)
    {
        _now = now ?? (() => RateLimiter.Now);
        _sleep = sleep ?? Thread.Sleep;
        _limiter = RateLimiter.Create(new RateLimit(0, PerSecond, 0, Burst), _now())!;
    }

    /// <summary>Waits until the next change may go.</summary>
    internal void Wait()
    {
        while (!_limiter.TryTake(0, _now(), out int milliseconds))
        {
            _sleep(milliseconds);
        }
    }
}
