using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>What happens to the replication of a VM.</summary>
internal enum ReplicaChange
{
    /// <summary>The other site has no point yet.</summary>
    SeedNeeded,

    /// <summary>What the other site has does not match what is known here: hashes have to say what differs.</summary>
    ResyncNeeded,

    /// <summary>A point is safe at the other site, and is the newest one.</summary>
    PointSafe,

    /// <summary>The newest point is older than two intervals.</summary>
    Late,

    /// <summary>The other site does not answer.</summary>
    PeerLost,

    /// <summary>It answers again, and has points.</summary>
    PeerAnswers,

    /// <summary>A person holds it, or vmmd has to.</summary>
    Suspended,

    /// <summary>The suspension is over.</summary>
    Resumed,

    /// <summary>The other site has another history.</summary>
    Fenced,

    /// <summary>It has this one again, or a person has decided.</summary>
    Released,
}

/// <summary>The transitions of <see cref="ReplicaState"/>; what is not in the table changes nothing.</summary>
internal static class ReplicaTransitions
{
    /// <summary>Where a change leads.</summary>
    /// <param name="from">Where it stands.</param>
    /// <param name="change">What happens.</param>
    /// <returns>Null: that changes nothing there.</returns>
    internal static ReplicaState? Next(ReplicaState from, ReplicaChange change) => (from, change) switch
    {
        // A person's word and another history hold all else.
        (ReplicaState.Suspended, ReplicaChange.Resumed) => ReplicaState.Behind,
        (ReplicaState.Suspended, ReplicaChange.Fenced) => ReplicaState.Fenced,
        (ReplicaState.Suspended, _) => null,
        (ReplicaState.Fenced, ReplicaChange.Released) => ReplicaState.Behind,
        (ReplicaState.Fenced, _) => null,
        (_, ReplicaChange.Suspended) => ReplicaState.Suspended,
        (_, ReplicaChange.Fenced) => ReplicaState.Fenced,
        (_, ReplicaChange.SeedNeeded) => ReplicaState.Seeding,
        (_, ReplicaChange.ResyncNeeded) => ReplicaState.Resyncing,
        (_, ReplicaChange.PointSafe) => ReplicaState.InSync,
        (ReplicaState.Disconnected, ReplicaChange.PeerAnswers) => ReplicaState.Behind,
        (ReplicaState.Disconnected, _) => null,
        (_, ReplicaChange.PeerLost) => ReplicaState.Disconnected,
        (ReplicaState.InSync, ReplicaChange.Late) => ReplicaState.Behind,
        _ => null,
    };
}
