namespace Vmm.Contracts.Rest;

/// <summary>A VM is to be replicated.</summary>
/// <param name="To">The vmmd of the recovery site: <c>https://HOST:PORT</c>.</param>
/// <param name="Disks">Names of the disks; null: all that can be written.</param>
/// <param name="IntervalSeconds">Seconds between cuts, 5 to 3600; null: 30.</param>
/// <param name="Keep">Which points the recovery site keeps; null: the last hour, 24 hourly, 7 daily.</param>
/// <param name="BytesPerSecond">Most bytes to send in a second; null is without a limit.</param>
/// <param name="QuiesceSeconds">Each cut freezes the guest's file systems, at most so long, 1 to 60; null: it does not.</param>
public sealed record ReplicaWish(
    string To, IReadOnlyList<string>? Disks = null, int? IntervalSeconds = null, ReplicaKeep? Keep = null, ulong? BytesPerSecond = null,
    int? QuiesceSeconds = null);

/// <summary>Where replication stands at the primary.</summary>
public enum ReplicaState
{
    /// <summary>The first copy of the disks goes over.</summary>
    Seeding,

    /// <summary>Cuts are sent in time.</summary>
    InSync,

    /// <summary>The newest point at the other site is older than two intervals.</summary>
    Behind,

    /// <summary>The other site does not answer; cuts wait here.</summary>
    Disconnected,

    /// <summary>What differs is looked for by hashes, and sent.</summary>
    Resyncing,

    /// <summary>Somebody or something holds it; <see cref="ReplicaInfo.Suspension"/> says who, why and until when.</summary>
    Suspended,

    /// <summary>The other site has taken over, or both have written: a person has to decide.</summary>
    Fenced,
}

/// <summary>Why replication does not go on. Each has an owner and an end.</summary>
/// <param name="Owner">Who: a person's name, or <c>vmmd</c>.</param>
/// <param name="Reason">Why.</param>
/// <param name="Until">When it ends by itself.</param>
public sealed record ReplicaSuspension(string Owner, string Reason, DateTimeOffset Until);

/// <summary>How the replication of a VM goes, seen from the primary.</summary>
/// <param name="Vm">The VM's name.</param>
/// <param name="To">The recovery site.</param>
/// <param name="State">Where it stands.</param>
/// <param name="IntervalSeconds">Seconds between cuts.</param>
/// <param name="Disks">The disks.</param>
/// <param name="NewestPoint">Time of the newest point that is safe at the other site; null without one.</param>
/// <param name="AgeSeconds">How old that is: what would be lost now.</param>
/// <param name="PendingBytes">Bytes that were cut or written and are not there yet, as far as is known.</param>
/// <param name="SpoolBytes">Bytes of deltas that wait here.</param>
/// <param name="WorstAgeSeconds">The oldest that the newest point was in the last hour: the recovery point objective as measured.</param>
/// <param name="PredictedAgeSeconds">
/// How old it will be at worst if all goes on as in the last minutes; null while nothing was sent.
/// </param>
/// <param name="BytesPerSecond">What was sent in a second, in the last minute.</param>
/// <param name="PointsSent">Points that the other site has acknowledged since vmmd started.</param>
/// <param name="Suspension">Who holds it.</param>
/// <param name="LastError">What failed last, and when; null: nothing since it worked.</param>
/// <param name="WhyFull">Why all of a disk was sent the last time; null: never.</param>
/// <param name="Generations">What this site knows of the histories.</param>
public sealed record ReplicaInfo(
    string Vm, string To, ReplicaState State, int IntervalSeconds, IReadOnlyList<string> Disks, DateTimeOffset? NewestPoint,
    double? AgeSeconds, ulong PendingBytes, ulong SpoolBytes, double WorstAgeSeconds, double? PredictedAgeSeconds, double BytesPerSecond,
    ulong PointsSent, ReplicaSuspension? Suspension, string? LastError, string? WhyFull, ReplicaGenerations Generations);

/// <summary>Replication is to wait.</summary>
/// <param name="Reason">Why, for people.</param>
/// <param name="Seconds">How long at most, 1 to 604800; null: an hour.</param>
public sealed record ReplicaPauseWish(string? Reason = null, int? Seconds = null);

/// <summary>A recovery point.</summary>
/// <param name="Number">Its place in the order; what verbs take.</param>
/// <param name="Id">The point: a UUID.</param>
/// <param name="Time">When the disks were so.</param>
/// <param name="Quiesced">Whether the guest was frozen, and how that went; null when it was not asked for.</param>
/// <param name="IsLast">It was cut after the VM was off.</param>
/// <param name="Bytes">Bytes of its files that no other point needs.</param>
/// <param name="UsedBy">VMs that stand on it: test failovers, the VM that was failed over to it.</param>
public sealed record RecoveryPoint(
    int Number, string Id, DateTimeOffset Time, string? Quiesced, bool IsLast, ulong Bytes, IReadOnlyList<string> UsedBy);

/// <summary>A replica, seen from the recovery site.</summary>
/// <param name="Name">The VM's name at the primary.</param>
/// <param name="Vm">The VM's id.</param>
/// <param name="Source">The primary.</param>
/// <param name="State">Where it stands.</param>
/// <param name="Points">Its points, in their order.</param>
/// <param name="Keep">Which are kept.</param>
/// <param name="AgeSeconds">How old the newest one is; null without one.</param>
/// <param name="Arriving">A point that comes.</param>
/// <param name="FailedOverTo">The VM that was made by a failover, and of which point; null without one.</param>
/// <param name="Tests">VMs of test failovers.</param>
/// <param name="Generations">Its generations.</param>
/// <param name="Problem">What is wrong with it; null: nothing.</param>
public sealed record RecoveryInfo(
    string Name, string Vm, string Source, ReplicaSiteState State, IReadOnlyList<RecoveryPoint> Points, ReplicaKeep Keep,
    double? AgeSeconds, ReplicaIntakeInfo? Arriving, string? FailedOverTo, IReadOnlyList<string> Tests, ReplicaGenerations Generations,
    string? Problem);

/// <summary>All replicas of a host.</summary>
/// <param name="Sent">VMs that are replicated to other hosts.</param>
/// <param name="Received">VMs of other hosts.</param>
public sealed record ReplicaList(IReadOnlyList<ReplicaInfo> Sent, IReadOnlyList<RecoveryInfo> Received);

/// <summary>A VM is to be made of a recovery point.</summary>
/// <param name="Point">The number; null: the newest.</param>
/// <param name="Network">
/// The private network that its network devices are on in a test failover; null: it has none.
/// </param>
/// <param name="As">The name of the VM; null: for a test <c>NAME-test-1</c> and on, for a failover the same as at the primary.</param>
/// <param name="Networks">Names of networks or bridges at the primary, and what they are here: <c>FROM=TO</c>.</param>
/// <param name="Start">Start it; null: yes.</param>
/// <param name="Confirm">
/// The VM's name, typed: needed when a failover would lose what the primary has written since the point, or cannot know.
/// </param>
public sealed record FailoverWish(
    int? Point = null, string? Network = null, string? As = null, IReadOnlyList<string>? Networks = null, bool? Start = null,
    string? Confirm = null);
