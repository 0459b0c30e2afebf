using Vmm.Contracts.Rest;
using Vmm.Daemon.Metrics;
using Vmm.Storage;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Receiving;

/// <summary>What <c>/metrics</c> tells of replicas of VMs of other hosts.</summary>
internal static class ReplicaMetrics
{
    /// <summary>Adds it.</summary>
    /// <param name="text">The text.</param>
    /// <param name="replicas">The replicas.</param>
    /// <param name="now">The time.</param>
    internal static void Add(MetricsText text, IReadOnlyList<Replica> replicas, DateTimeOffset now)
    {
        Replica[] sound = [.. replicas.Where(replica => replica.Damage is null)];
        text.Family("vmm_replica_state", "gauge", "1 for the state in which a replica of another host's VM is");
        foreach (Replica replica in replicas)
        {
            foreach (ReplicaSiteState state in Enum.GetValues<ReplicaSiteState>())
            {
                bool isIn = replica.Damage is null && replica.Record.State == state;
                text.Sample("vmm_replica_state", isIn ? 1 : 0, ("vm", replica.Name), ("state", state.ToString().ToLowerInvariant()));
            }
        }

        text.Family("vmm_replica_points", "gauge", "Recovery points of a replica");
        foreach (Replica replica in sound)
        {
            text.Sample("vmm_replica_points", replica.Points.Points.Count, ("vm", replica.Name));
        }

        text.Family("vmm_replica_newest_age_seconds", "gauge", "How old the newest recovery point of a replica is");
        foreach (Replica replica in sound)
        {
            if (replica.Points.Newest is { } newest)
            {
                text.Sample("vmm_replica_newest_age_seconds", Math.Max(0, (now - newest.Point.Time).TotalSeconds), ("vm", replica.Name));
            }
        }

        text.Family("vmm_replica_bytes", "gauge", "Bytes that the recovery points of a replica take");
        foreach (Replica replica in sound)
        {
            if (BytesOf(replica) is { } bytes)
            {
                text.Sample("vmm_replica_bytes", bytes, ("vm", replica.Name));
            }
        }
    }

    private static double? BytesOf(Replica replica)
    {
        try
        {
            return replica.Points.Points.Sum(point => (double)replica.Points.BytesOf(point));
        }
        catch (BlockException)
        {
            return null; // a file went between two looks, by a merge
        }
    }
}
