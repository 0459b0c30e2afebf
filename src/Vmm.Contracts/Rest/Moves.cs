namespace Vmm.Contracts.Rest;

/// <summary>How far the move of a VM is. What the worker says: for people.</summary>
/// <param name="Stage"><c>preparing</c>, <c>copying</c>, <c>stopping</c>, <c>asking</c> (another host, whether it
/// has the VM), <c>handed-over</c> or <c>failed</c>.</param>
/// <param name="Round">Which pass over the memory goes on, from 1.</param>
/// <param name="TotalBytes">Memory that the VM has.</param>
/// <param name="LeftBytes">Memory that is to be sent still, as far as is known.</param>
/// <param name="SentBytes">Bytes that were sent.</param>
/// <param name="BytesPerSecond">Bytes that are sent in a second, lately.</param>
/// <param name="DirtyBytesPerSecond">Memory that the guest writes anew in a second, lately.</param>
/// <param name="ThrottlePercent">How much its vCPUs are slowed down; 0 is not at all.</param>
/// <param name="DowntimeMilliseconds">How long it would stand still if it were stopped now; when it was handed over: how long that
/// took.</param>
public sealed record MoveProgress(
    string Stage,
    int Round,
    ulong TotalBytes,
    ulong LeftBytes,
    ulong SentBytes,
    ulong BytesPerSecond,
    ulong DirtyBytesPerSecond,
    int ThrottlePercent,
    double DowntimeMilliseconds)
{
    /// <summary>How much of all that is to be sent is sent, as far as is known: 0 to 1.</summary>
    public double Part() => SentBytes == 0 ? 0 : SentBytes / ((double)SentBytes + LeftBytes);
}

/// <summary>Bounds of what may be asked of a move.</summary>
public static class MoveLimits
{
    /// <summary>The longest downtime, milliseconds.</summary>
    public const int MostDowntime = 60_000;

    /// <summary>The longest time that a move may take, seconds.</summary>
    public const int MostTimeout = 86_400;
}

/// <summary>A VM is to go on in a new worker of its host.</summary>
/// <param name="MaxDowntimeMilliseconds">How long its guest may stand still; null is the daemon's choice.</param>
/// <param name="TimeoutSeconds">How long it may take until then; null is the daemon's choice.</param>
/// <param name="Force">When that time is over the guest is stopped for as long as it takes; otherwise the move is given up.</param>
public sealed record UpgradeRequest(int? MaxDowntimeMilliseconds = null, int? TimeoutSeconds = null, bool? Force = null);
