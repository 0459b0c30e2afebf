namespace Vmm.Daemon.Workers;

/// <summary>
/// How much a worker may send without being asked: a burst, then so much a second. What is beyond that stays in the socket, whose buffer
/// fills: then the worker waits, and nobody else. One reader uses it.
/// </summary>
internal sealed class EventBudget
{
    /// <summary>Cost of a frame beside its bytes.</summary>
    private const int FrameCost = 1024;

    private const long Burst = 2 << 20, PerSecond = 1 << 20;

    private long _left = Burst, _last = Environment.TickCount64;

    /// <summary>Charges a frame of so many bytes; milliseconds to wait before the next one is read, 0 most of the time.</summary>
    internal int Charge(int bytes)
    {
        long now = Environment.TickCount64;
        _left = Math.Min(Burst, _left + ((now - _last) * PerSecond / 1000)) - bytes - FrameCost;
        _last = now;
        return _left >= 0 ? 0 : (int)(-_left * 1000 / PerSecond) + 1;
    }
}
