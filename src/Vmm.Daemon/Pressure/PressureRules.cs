namespace Vmm.Daemon.Pressure;

/// <summary>
/// Numbers of the policy. Two marks with room between them, a time of calm before anything is given back, and rests after changes keep it
/// from swinging.
/// </summary>
internal sealed record PressureRules
{
    /// <summary>Share of the host's memory that stays available where nobody says how much.</summary>
    internal double ReserveShare { get; init; } = 0.05;

    /// <summary>Least of that, bytes.</summary>
    internal ulong LeastReserve { get; init; } = 256UL << 20;

    /// <summary>Memory is given back only beyond the reserve times this; that much is to be available while tasks stall, too.</summary>
    internal double High { get; init; } = 1.5;

    /// <summary>Taking goes so far from the reserve to the high mark, so that the next byte is no pressure again.</summary>
    internal double Goal { get; init; } = 0.25;

    /// <summary>Share of the last ten seconds with tasks waiting for memory (PSI, some) from which on the reserve is not enough.</summary>
    internal double Stall { get; init; } = 0.10;

    /// <summary>Share of a limit that one step may be.</summary>
    internal double Step { get; init; } = 0.25;

    /// <summary>A step may be so large in any case, bytes.</summary>
    internal ulong LeastStep { get; init; } = 64UL << 20;

    /// <summary>Limits move by multiples of this, bytes.</summary>
    internal ulong Grain { get; init; } = 4UL << 20;

    /// <summary>Between a change of a VM and the next time that something is taken from it.</summary>
    internal TimeSpan TakeRest { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>Between a change of a VM and the next time that something is given back to it.</summary>
    internal TimeSpan GiveRest { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>How long the host must have had more than the high mark before something is given back.</summary>
    internal TimeSpan Calm { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>How long it counts that a VM with a new limit may still grow up to it.</summary>
    internal TimeSpan Settle { get; init; } = TimeSpan.FromMinutes(2);

    /// <summary>Without progress, what is on its way back from a VM counts no longer than that.</summary>
    internal TimeSpan Stuck { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>A VM that waits for its pages counts with its weight times this.</summary>
    internal double HotFactor { get; init; } = 2;

    /// <summary>Share of its resident memory that such a VM reads from its swap file each second.</summary>
    internal double HotReads { get; init; } = 1.0 / 256;

    /// <summary>Share of its staged pages that such a VM touches again.</summary>
    internal double HotTouches { get; init; } = 0.75;

    /// <summary>Share of its memory that a guest keeps available when its balloon takes some.</summary>
    internal double BalloonKeep { get; init; } = 0.30;

    /// <summary>A guest with a smaller share available gets memory back out of its balloon, however the host stands.</summary>
    internal double BalloonLow { get; init; } = 0.10;

    /// <summary>Share of its memory that a balloon takes in one step.</summary>
    internal double BalloonStep { get; init; } = 0.125;

    /// <summary>A guest that needed memory back, or did not give it, is not asked again for so long.</summary>
    internal TimeSpan BalloonRest { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>What stays available of a host with so much memory.</summary>
    internal ulong ReserveOf(ulong total, ulong? said) =>
        Math.Min(said ?? Math.Max(LeastReserve, (ulong)(total * ReserveShare)), total / 2);
}
