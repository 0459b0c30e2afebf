using System.Text.Json;
using System.Text.Json.Serialization;

namespace Vmm.Contracts.Control;

/// <summary>Where a move stands in the worker that has the VM.</summary>
public enum MoveStage
{
    /// <summary>There is no move.</summary>
    None,

    /// <summary>Memory is sent while the VM runs.</summary>
    Copying,

    /// <summary>What is left fits into the downtime: the daemon is to stop the VM. Memory that it writes meanwhile is sent on.</summary>
    Converged,

    /// <summary>The VM is at rest, its last pages and its state are with the receiver, its disks are let go of.</summary>
    HandedOver,

    /// <summary>It failed: the VM is as it was before, <see cref="MoveInfo.Problem"/> says why.</summary>
    Failed,
}

/// <summary>How a VM is to be moved; its channels come with the request, as <c>channel0</c> and so on.</summary>
/// <param name="Channels">How many channels there are, 1 to <see cref="MostChannels"/>. Number 0 also has what is no memory.</param>
/// <param name="DowntimeMilliseconds">How long the guest may stand still.</param>
/// <param name="BytesPerSecond">Most bytes to send in a second while it runs; null is no limit.</param>
/// <param name="Throttle">vCPUs that write faster than can be sent may be slowed down.</param>
/// <param name="PassMemory">The receiver is a worker of this host that gets the memory itself: <see cref="ControlVersion.MemoryPassing"/>.
/// </param>
public sealed record MoveBody(
    int Channels,
    int DowntimeMilliseconds,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] ulong? BytesPerSecond = null,
    bool Throttle = true,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)] bool PassMemory = false)
{
    /// <summary>The most channels of a move.</summary>
    public const int MostChannels = 16;
}

/// <summary>How far a move is, in the worker that has the VM.</summary>
/// <param name="Stage">Where it stands.</param>
/// <param name="Round">Which pass over the memory goes on, from 1.</param>
/// <param name="TotalBytes">Memory that the VM has.</param>
/// <param name="LeftBytes">Memory that is to be sent still, as far as is known.</param>
/// <param name="SentBytes">Bytes that went into the channels.</param>
/// <param name="BytesPerSecond">Bytes that go into the channels in a second, lately.</param>
/// <param name="DirtyBytesPerSecond">Memory that the guest and its devices write anew in a second, lately.</param>
/// <param name="ThrottlePercent">How much the vCPUs are slowed down; 0 is not at all.</param>
/// <param name="DowntimeMilliseconds">Estimate of the downtime if the VM were stopped now; behind the stop: what it took here.</param>
/// <param name="Problem">Why it failed.</param>
public sealed record MoveInfo(
    MoveStage Stage,
    int Round,
    ulong TotalBytes,
    ulong LeftBytes,
    ulong SentBytes,
    ulong BytesPerSecond,
    ulong DirtyBytesPerSecond,
    int ThrottlePercent,
    double DowntimeMilliseconds,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Problem = null);

/// <summary>How long a VM may take to come to rest and to hand over what is left.</summary>
/// <param name="Milliseconds">From now on.</param>
public sealed record MoveStopBody(int Milliseconds);

/// <summary>A VM that comes from another worker; its channels come with the request, as <c>channel0</c> and so on.</summary>
/// <param name="Spec">What it is, as in the spec's JSON, with its memory.</param>
/// <param name="Channels">How many channels there are.</param>
/// <param name="MayPass">The sender is a worker of this host, and may pass the memory itself.</param>
public sealed record ReceiveBody(
    JsonElement Spec, int Channels, [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)] bool MayPass = false);

/// <summary>Where a move stands in the worker that gets the VM.</summary>
public enum ReceiveStage
{
    /// <summary>Memory comes.</summary>
    Receiving,

    /// <summary>Everything is there: the VM can be built.</summary>
    Complete,

    /// <summary>It failed, and nothing will come of it; <see cref="ReceiveInfo.Problem"/> says why.</summary>
    Failed,
}

/// <summary>How far a move is, in the worker that gets the VM.</summary>
/// <param name="Stage">Where it stands.</param>
/// <param name="ReceivedBytes">Bytes that came out of the channels.</param>
/// <param name="Problem">Why it failed.</param>
public sealed record ReceiveInfo(
    ReceiveStage Stage,
    ulong ReceivedBytes,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Problem = null);
