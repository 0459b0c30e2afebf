using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Replicas.Receiving;

/// <summary>What happens to a replica.</summary>
internal enum ReplicaEvent
{
    /// <summary>A point is offered or comes.</summary>
    Point,

    /// <summary>The VM is to run here.</summary>
    Failover,

    /// <summary>The failover is final.</summary>
    Commit,

    /// <summary>The failover is taken back.</summary>
    Cancel,

    /// <summary>The replica goes.</summary>
    Delete,
}

/// <summary>The life of a replica at the recovery site, as one table. What is not in it is refused with the state and the event.</summary>
internal static class ReplicaStates
{
    private static readonly Dictionary<(ReplicaSiteState From, ReplicaEvent On), ReplicaSiteState> s_table = new()
    {
        [(ReplicaSiteState.Receiving, ReplicaEvent.Point)] = ReplicaSiteState.Receiving,
        [(ReplicaSiteState.Receiving, ReplicaEvent.Failover)] = ReplicaSiteState.FailedOver,
        [(ReplicaSiteState.Receiving, ReplicaEvent.Delete)] = ReplicaSiteState.Receiving,
        [(ReplicaSiteState.FailedOver, ReplicaEvent.Commit)] = ReplicaSiteState.Committed,
        [(ReplicaSiteState.FailedOver, ReplicaEvent.Cancel)] = ReplicaSiteState.Receiving,
        [(ReplicaSiteState.Committed, ReplicaEvent.Delete)] = ReplicaSiteState.Committed,
    };

    /// <summary>The state after an event.</summary>
    /// <param name="name">The replica, for the message.</param>
    /// <param name="from">The state before it.</param>
    /// <param name="on">The event.</param>
    /// <exception cref="ApiException">It cannot happen then.</exception>
    internal static ReplicaSiteState Next(string name, ReplicaSiteState from, ReplicaEvent on) =>
        s_table.TryGetValue((from, on), out ReplicaSiteState next) ? next : throw Refused(name, from, on);

    private static ApiException Refused(string name, ReplicaSiteState from, ReplicaEvent on) => new(
        409, from == ReplicaSiteState.Receiving ? "replica-receiving" : "replica-failed-over", "the replica is in another state",
        $"{name}: {(from, on) switch
        {
            (ReplicaSiteState.Receiving, _) => "there is no failover to commit or to cancel: it takes points of its primary",
            (ReplicaSiteState.FailedOver, ReplicaEvent.Failover) =>
                $"it is failed over already: cancel that first ('vmmctl replica cancel {name}'), or commit it",
            (ReplicaSiteState.FailedOver, ReplicaEvent.Delete) =>
                $"it is failed over: commit that or cancel it before its points are deleted ('vmmctl replica cancel {name}')",
            (ReplicaSiteState.FailedOver, _) => "it is failed over here, and takes no points until that is cancelled",
            (_, ReplicaEvent.Cancel) => "its failover was committed, and cannot be cancelled any more",
            (_, ReplicaEvent.Commit) => "its failover is committed",
            (_, ReplicaEvent.Failover) => "its VM runs here for good: its points are for test failovers only",
            _ => "the recovery site is the primary now, and takes no points",
        }}");
}
