using Vmm.Devices.Virtio;

namespace Vmm.Machine.Run;

/// <summary>
/// How often a guest may lock the memory bus: every lock stops all processors of the host for a moment. No sound guest does it often; one that does waits
/// here. Shared by the vCPUs of a VM.
/// </summary>
internal sealed class BusLockPace
{
    /// <summary>Locks a second, in the long run.</summary>
    internal const int PerSecond = 1000;

    private readonly RateLimiter _limiter;
    private readonly Func<long> _now;
    private readonly Action<int> _sleep;

    /// <param name="now">Nanoseconds; the clock of <see cref="RateLimiter"/> when null.</param>
    /// <param name="sleep">Waits so many milliseconds; the thread sleeps when null.</param>
    internal BusLockPace(Func<long>? now = null, Action<int>? sleep = null)
    {
        _now = now ?? (() => RateLimiter.Now);
        _sleep = sleep ?? Thread.Sleep;
        _limiter = RateLimiter.Create(new RateLimit(0, PerSecond), _now())!;
    }

    /// <summary>Waits until the lock that was just taken was due, or nobody wants to go on.</summary>
    /// <param name="isOver">The vCPU has to stop.</param>
    internal void Wait(Func<bool> isOver)
    {
        while (!_limiter.TryTake(0, _now(), out int milliseconds) && !isOver())
        {
            _sleep(milliseconds);
        }
    }
}
