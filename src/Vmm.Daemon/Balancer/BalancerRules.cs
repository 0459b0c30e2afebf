namespace Vmm.Daemon.Balancer;

/// <summary>Numbers of the policy. Two thresholds with room between them, and rests after changes, keep it from swinging.</summary>
public sealed record BalancerRules
{
    /// <summary>Share of its memory that a vnode must have available, or it grows.</summary>
    public double Low { get; init; } = 0.15;

    /// <summary>Share from which on it has more than it needs.</summary>
    public double High { get; init; } = 0.45;

    /// <summary>Share that it keeps when it gives memory back.</summary>
    public double Keep { get; init; } = 0.30;

    /// <summary>Share of the last ten seconds with tasks waiting for memory from which on it grows, whatever is available.</summary>
    public double Stall { get; init; } = 0.10;

    /// <summary>Share of its memory that one step may be; a step is at least a block.</summary>
    public double Step { get; init; } = 0.125;

    /// <summary>
    /// The same for a balloon that takes what nobody asks for: it takes single pages from a guest at work, and breaks up its large ones.
    /// </summary>
    public double BalloonStep { get; init; } = 0.0625;

    /// <summary>Share of a host node that stays free.</summary>
    public double ReserveShare { get; init; } = 0.05;

    /// <summary>Bytes of a host node that stay free at least.</summary>
    public ulong ReserveBytes { get; init; } = 256UL << 20;

    /// <summary>Between a change of a vnode and its next shrinking.</summary>
    public TimeSpan ShrinkRest { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>How long a vnode must have had too much before it gives back what nobody asks for.</summary>
    public TimeSpan Idle { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>Without any progress a guest that was asked to give memory back has that long; then it keeps it.</summary>
    public TimeSpan Stuck { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>Longest rest after shrinking that went wrong; each time it doubles.</summary>
    public TimeSpan LongestRest { get; init; } = TimeSpan.FromHours(1);

    /// <summary>What stays free of a host node.</summary>
    public ulong ReserveOf(HostSample host) => Math.Max(ReserveBytes, (ulong)(host.Total * ReserveShare));
}
