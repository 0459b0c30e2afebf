using Vmm.Contracts.Rest;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>Errors of replication that both its loops and its operators meet.</summary>
internal static class ReplicaProblem
{
    /// <summary>The other site took a point and then found fault with it.</summary>
    internal const string Refused = "replica-point-refused";

    /// <summary>The VM is not replicated.</summary>
    internal static ApiException None(string vm) => new(404, "replica-not-found", "the VM is not replicated",
        $"{vm} is not replicated to another site: 'vmmctl replica enable {vm} --to https://HOST:PORT' does it");

    /// <summary>It is held.</summary>
    internal static ApiException Held(string vm, ReplicaSuspension held) => new(409, "replica-suspended", "replication is suspended",
        $"{vm}: {held.Owner} holds it until {held.Until:u}: {held.Reason}");

    /// <summary>The other site has another history.</summary>
    internal static ApiException Fenced(string vm, string why) =>
        new(409, "replica-fenced", "both sites have written", $"{vm}: {why}");

    /// <summary>The other site refuses, or does not answer.</summary>
    internal static ApiException OfPeer(string vm, PeerException cause) =>
        new(502, cause.Code, "the recovery site does not do it", $"{vm}: {cause.Message}", inner: cause);

    /// <summary>A value of a wish that cannot be.</summary>
    internal static ApiException Invalid(string field, string what) => new(422, "replica-invalid", "the VM cannot be replicated like that",
        $"{field}: {what}", [new FieldProblem(field, what, 0)]);
}
