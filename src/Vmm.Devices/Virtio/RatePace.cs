namespace Vmm.Devices.Virtio;

/// <summary>
/// Has a thread wait where something would happen more often than a limit allows. Any thread; those that share it share the limit.
/// </summary>
public sealed class RatePace
{
    private readonly RateLimiter _limiter;
    private readonly Func<long> _now;
    private readonly Action<int> _sleep;

    /// <param name="perSecond">Times a second, in the long run.</param>
    /// <param name="burst">Times at once after a pause; 0: a tenth of a second's.</param>
    /// <param name="now">Nanoseconds; the clock of <see cref="RateLimiter"/> when null.</param>
    /// <param name="sleep">Waits so many milliseconds; the thread sleeps when null.</param>
    public RatePace(ulong perSecond, ulong burst = 0, Func<long>? now = null, Action<int>? sleep = null)
    {
        _now = now ?? (() => RateLimiter.Now);
        _sleep = sleep ?? Thread.Sleep;
        _limiter = RateLimiter.Create(new RateLimit(0, perSecond, 0, burst), _now())!;
    }

    /// <summary>Waits until it may happen once more, or nobody wants it any more.</summary>
    /// <param name="isOver">Nobody does; null: somebody always does.</param>
    public void Wait(Func<bool>? isOver = null)
    {
        while (!_limiter.TryTake(0, _now(), out int milliseconds) && isOver?.Invoke() is not true)
        {
            _sleep(milliseconds);
        }
    }
}
