namespace Vmm.Contracts.Rest;

/// <summary>
/// What two sites know of the histories of a VM, as DRBD does: a new generation begins when a site's VM begins to write while the other
/// site does not get it. UUIDs; an empty text is none.
/// </summary>
/// <param name="Current">The history that the disks here belong to.</param>
/// <param name="LastCommon">The generation up to which both sites had the same; empty while they still have.</param>
/// <param name="Older">The one before.</param>
/// <param name="Oldest">The one before that.</param>
public sealed record ReplicaGenerations(string Current, string LastCommon = "", string Older = "", string Oldest = "");

/// <summary>A disk of a VM that is replicated.</summary>
/// <param name="Name">Its name in the VM, such as <c>disk0</c>.</param>
/// <param name="Bytes">Its size.</param>
public sealed record ReplicaDisk(string Name, ulong Bytes);

/// <summary>How long recovery points are kept. A point is kept when one rule wants it; the newest one always is.</summary>
/// <param name="AllSeconds">All points that are not older than this.</param>
/// <param name="Hourly">The newest point of each of so many hours.</param>
/// <param name="Daily">The newest point of each of so many days.</param>
public sealed record ReplicaKeep(int AllSeconds = 3600, int Hourly = 24, int Daily = 7);

/// <summary>One vmmd asks another one to be the recovery site of a VM. Everything in it is a stranger's word.</summary>
/// <param name="Vm">The VM's id, a UUID.</param>
/// <param name="Name">The VM's name.</param>
/// <param name="Source">What the primary calls itself: a host name, for people.</param>
/// <param name="Generations">The primary's.</param>
/// <param name="Disks">The disks.</param>
/// <param name="Keep">Which points are kept.</param>
public sealed record ReplicaOffer(
    string Vm, string Name, string Source, ReplicaGenerations Generations, IReadOnlyList<ReplicaDisk> Disks, ReplicaKeep Keep);

/// <summary>Where a replica stands at the recovery site.</summary>
public enum ReplicaSiteState
{
    /// <summary>It takes points.</summary>
    Receiving,

    /// <summary>The VM runs, or may run, at the recovery site: nothing is taken until that is cancelled.</summary>
    FailedOver,

    /// <summary>The recovery site has become the primary for good.</summary>
    Committed,
}

/// <summary>A disk of a point, as it comes.</summary>
/// <param name="Name">The disk.</param>
/// <param name="Bytes">Its size.</param>
/// <param name="Stored">Bytes of its sealed delta.</param>
/// <param name="Seal">The seal of that, 64 hexadecimal digits.</param>
/// <param name="Root">The root of the disk's hash tree at the point, 64 hexadecimal digits.</param>
/// <param name="Why">Why the delta has all of the disk; null when it has what changed.</param>
public sealed record ReplicaPointDisk(string Name, ulong Bytes, ulong Stored, string Seal, string Root, string? Why = null);

/// <summary>A point that the primary is about to send.</summary>
/// <param name="Id">The point: a UUID.</param>
/// <param name="Parent">The point before it; empty when each delta has all of its disk.</param>
/// <param name="Generation">The generation of the primary when it was cut.</param>
/// <param name="Time">When the disks were as they are in it.</param>
/// <param name="IsLast">It was cut after the VM was off: nothing is lost with it.</param>
/// <param name="Spec">The VM's spec, YAML; its paths are whole.</param>
/// <param name="Disks">The disks.</param>
/// <param name="Quiesced">Whether the guest's file systems were frozen, and how that went; null when it was not asked for.</param>
/// <param name="Variables">The firmware's variables, base64; null when it has none.</param>
public sealed record ReplicaPointOffer(
    string Id, string Parent, string Generation, DateTimeOffset Time, bool IsLast, string Spec, IReadOnlyList<ReplicaPointDisk> Disks,
    string? Quiesced = null, string? Variables = null);

/// <summary>How far a point has come.</summary>
/// <param name="Id">The point.</param>
/// <param name="Arrived">Bytes of each disk's delta that are stable, in the order of the offer: sending goes on there.</param>
/// <param name="Sealing">All is there; it is checked and put over the points before.</param>
/// <param name="Problem">Why nothing becomes of it: it has to be offered anew.</param>
public sealed record ReplicaIntakeInfo(string Id, IReadOnlyList<ulong> Arrived, bool Sealing = false, string? Problem = null);

/// <summary>What the recovery site says of a replica.</summary>
/// <param name="Vm">The VM's id.</param>
/// <param name="State">Where it stands.</param>
/// <param name="Generations">Its own.</param>
/// <param name="Newest">The newest point that is safe there; empty without one.</param>
/// <param name="Roots">The roots of that point's disks: what a delta has to stand on.</param>
/// <param name="Intake">A point that comes.</param>
/// <param name="Free">Bytes that are free there.</param>
public sealed record ReplicaSiteInfo(
    string Vm, ReplicaSiteState State, ReplicaGenerations Generations, string Newest, IReadOnlyList<ReplicaPointDisk> Roots,
    ReplicaIntakeInfo? Intake, ulong Free);

/// <summary>Bytes of a delta have arrived.</summary>
/// <param name="Arrived">How many bytes of the disk's delta are stable.</param>
public sealed record ReplicaArrived(ulong Arrived);
