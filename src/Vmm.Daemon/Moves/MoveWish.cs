using Vmm.Contracts.Control;

namespace Vmm.Daemon.Moves;

/// <summary>How a VM is to be moved.</summary>
/// <param name="Downtime">How long the guest may stand still.</param>
/// <param name="Timeout">How long it may take until the VM is stopped for it.</param>
/// <param name="Force">When that time is over the VM is stopped all the same; otherwise the move is given up.</param>
/// <param name="Channels">How many streams its memory goes through.</param>
internal sealed record MoveWish(TimeSpan Downtime, TimeSpan Timeout, bool Force = false, int Channels = 1)
{
    private static readonly TimeSpan s_leastStop = TimeSpan.FromSeconds(10);

    /// <summary>
    /// How long the VM may be held for the last part before that is given up: far beyond what it was measured to take, and as long as all
    /// before it when the VM is stopped by force.
    /// </summary>
    internal TimeSpan LongestStop => Force ? Max(Timeout, s_leastStop) : Max(10 * Downtime, s_leastStop);

    /// <summary>As the worker is told.</summary>
    internal MoveBody Body => new(Channels, (int)Downtime.TotalMilliseconds);

    private static TimeSpan Max(TimeSpan one, TimeSpan other) => one > other ? one : other;
}
