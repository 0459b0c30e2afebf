namespace Vmm.LifeCycle;

/// <summary>
/// When a VM that ended and is to go on is started again. Runs that end soon, one after the other, are started later and later: 1 s, 2 s,
/// 4 s, up to a minute; the first few reboots of a guest at once. Not thread-safe.
/// </summary>
public sealed class RestartPace
{
    private static readonly TimeSpan s_soon = TimeSpan.FromSeconds(60), s_longest = TimeSpan.FromSeconds(60);
    private const int FreeReboots = 3;

    private int _short;

    /// <summary>Somebody started the VM: what was before does not count.</summary>
    public void Reset() => _short = 0;

    /// <summary>How long to wait before the next start.</summary>
    /// <param name="isReboot">The guest itself asked for it.</param>
    /// <param name="ran">How long it ran.</param>
    public TimeSpan After(bool isReboot, TimeSpan ran)
    {
        _short = ran < s_soon ? _short + 1 : 0;
        int late = isReboot ? _short - FreeReboots : Math.Max(1, _short);
        return late <= 0 ? TimeSpan.Zero : TimeSpan.FromSeconds(Math.Min(Math.Pow(2, Math.Min(late, 10) - 1), s_longest.TotalSeconds));
    }
}
