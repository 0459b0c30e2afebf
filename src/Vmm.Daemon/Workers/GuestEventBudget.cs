namespace Vmm.Daemon.Workers;

/// <summary>
/// How many events of one kind (of its guest, of its disks) a worker may tell: each is told to listeners and logged. One reader uses it.
/// </summary>
internal sealed class GuestEventBudget
{
    private const int Burst = 16, MillisecondsEach = 1000;

    private int _left = Burst;
    private long _last = Environment.TickCount64;

    /// <summary>True when one more may be told: sixteen at once, then one a second.</summary>
    internal bool Admits()
    {
        long now = Environment.TickCount64, earned = (now - _last) / MillisecondsEach;
        if (earned > 0)
        {
            _left = (int)Math.Min(Burst, _left + earned);
            _last = now;
        }

        return _left > 0 && _left-- > 0;
    }
}
