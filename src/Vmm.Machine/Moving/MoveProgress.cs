namespace Vmm.Machine.Moving;

/// <summary>Where a move stands at the machine that is moved.</summary>
public enum MovePhase
{
    /// <summary>Memory is sent while it runs.</summary>
    Copying,

    /// <summary>What is left fits into the downtime; what it writes is sent on.</summary>
    Converged,

    /// <summary>It comes to rest, and the rest of it is sent.</summary>
    Stopping,

    /// <summary>The receiver has everything; the machine is at rest and has let go of its disks.</summary>
    HandedOver,

    /// <summary>It failed: the machine is as it was before.</summary>
    Failed,

    /// <summary>It was given up; likewise.</summary>
    GivenUp,
}

/// <summary>How a machine is to be moved.</summary>
/// <param name="Downtime">How long the guest may stand still.</param>
/// <param name="BytesPerSecond">Most bytes to send in a second while it runs; null: no limit.</param>
/// <param name="Throttle">vCPUs that write faster than can be sent may be slowed down.</param>
/// <param name="PassMemory">The receiver is a process of this host: it gets the memory itself, and no page is sent.</param>
public sealed record MoveWish(TimeSpan Downtime, ulong? BytesPerSecond = null, bool Throttle = true, bool PassMemory = false);

/// <summary>How far a move is.</summary>
/// <param name="Phase">Where it stands.</param>
/// <param name="Round">Which pass over the memory goes on, from 1.</param>
/// <param name="TotalBytes">Memory that the machine has.</param>
/// <param name="LeftBytes">What is to be sent still, as of the last look.</param>
/// <param name="SentBytes">Bytes that went into the channels.</param>
/// <param name="BytesPerSecond">How fast they go.</param>
/// <param name="DirtyBytesPerSecond">How fast memory is written anew.</param>
/// <param name="ThrottlePercent">How much the vCPUs are slowed down.</param>
/// <param name="Downtime">What it would be now, as far as can be said; what it was, once handed over.</param>
/// <param name="Problem">Why it failed.</param>
public sealed record MoveProgress(
    MovePhase Phase,
    int Round,
    ulong TotalBytes,
    ulong LeftBytes,
    ulong SentBytes,
    ulong BytesPerSecond,
    ulong DirtyBytesPerSecond,
    int ThrottlePercent,
    TimeSpan Downtime,
    string? Problem);
