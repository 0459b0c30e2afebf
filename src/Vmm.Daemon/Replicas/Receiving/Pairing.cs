using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Replicas.Receiving;

/// <summary>What becomes of a replica when a primary offers it, at first and again. Pure.</summary>
internal static class Pairing
{
    /// <summary>The record of a new replica.</summary>
    /// <param name="offer">What is offered.</param>
    /// <param name="peer">Who offers it.</param>
    internal static SiteRecord Begin(ReplicaOffer offer, string peer) => new()
    {
        Format = SiteRecord.Known,
        Vm = offer.Vm,
        Name = offer.Name,
        Source = offer.Source,
        Peer = peer,
        State = ReplicaSiteState.Receiving,
        Generations = new ReplicaGenerations(offer.Generations.Current),
        Disks = offer.Disks,
        Keep = offer.Keep,
    };

    /// <summary>The record of one that is offered again. One that is failed over stays as it is: its answer tells the primary so.</summary>
    /// <param name="record">The record.</param>
    /// <param name="offer">What is offered.</param>
    /// <param name="peer">Who offers it.</param>
    /// <exception cref="ApiException">It is another's, or of a history that is not known here.</exception>
    internal static SiteRecord Renew(SiteRecord record, ReplicaOffer offer, string peer)
    {
        if (!string.Equals(record.Peer, peer, StringComparison.Ordinal) || !string.Equals(record.Vm, offer.Vm, StringComparison.Ordinal)
            || !string.Equals(record.Name, offer.Name, StringComparison.Ordinal))
        {
            throw Taken(record, "it is the replica of another primary or another VM");
        }

        if (record.State != ReplicaSiteState.Receiving)
        {
            return record;
        }

        string here = record.Generations.Current, there = offer.Generations.Current;
        bool isSame = string.Equals(here, there, StringComparison.Ordinal);
        if (!isSame && record.IsPaired && !Knows(offer.Generations, here))
        {
            throw Taken(record, $"its points are of generation {here}, and the primary has {there}, which does not come of it");
        }

        ReplicaGenerations generations = isSame
            ? record.Generations
            : new ReplicaGenerations(there, "", here, record.Generations.Older);
        return record with
        {
            IsPaired = true,
            Source = offer.Source,
            Generations = generations,
            Disks = offer.Disks,
            Keep = offer.Keep,
        };
    }

    /// <summary>The generations of a site whose VM begins to write alone.</summary>
    /// <param name="before">Those that it had.</param>
    /// <param name="current">The new one.</param>
    internal static ReplicaGenerations Alone(ReplicaGenerations before, string current) =>
        new(current, before.Current, before.Older, before.Oldest);

    private static bool Knows(ReplicaGenerations generations, string one) =>
        new[] { generations.LastCommon, generations.Older, generations.Oldest }.Contains(one, StringComparer.Ordinal);

    private static ApiException Taken(SiteRecord record, string why) => new(
        409, "replica-taken", "the replica is another's",
        $"{record.Name}: {why}: delete the replica here first, if its points are not wanted ('vmmctl replica delete {record.Name}')");
}
