using Vmm.Contracts.Rest;
using Vmm.Daemon.Metrics;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>Families of <c>/metrics</c> about VMs that are replicated to other sites.</summary>
internal static class SentMetrics
{
    private static readonly (string Name, string Type, string Help, Func<ReplicaInfo, int, double?> Read)[] s_families =
    [
        ("vmm_replication_age_seconds", "gauge", "How old the newest point at the recovery site is: what would be lost now",
            (info, _) => info.AgeSeconds),
        ("vmm_replication_worst_age_seconds", "gauge", "The oldest that it was in the last hour", (info, _) => info.WorstAgeSeconds),
        ("vmm_replication_pending_bytes", "gauge", "Bytes that were cut or written and are not there yet, as far as is known",
            (info, _) => info.PendingBytes),
        ("vmm_replication_spool_bytes", "gauge", "Bytes of deltas that wait to be sent", (info, _) => info.SpoolBytes),
        ("vmm_replication_spool_points", "gauge", "Points that wait to be sent", (_, points) => points),
        ("vmm_replication_sent_bytes_per_second", "gauge", "What was sent in a second, in the last minute",
            (info, _) => info.BytesPerSecond),
        ("vmm_replication_points_sent_total", "counter", "Points that the recovery site has acknowledged since vmmd started",
            (info, _) => info.PointsSent),
        ("vmm_replication_suspended", "gauge", "1 while somebody or something holds replication",
            (info, _) => info.Suspension is null ? 0 : 1),
    ];

    /// <summary>Writes them.</summary>
    internal static void Add(MetricsText text, IReadOnlyList<(ReplicaInfo Info, int Points)> all)
    {
        text.Family("vmm_replication_state", "gauge", "1 for the state that the replication of a VM is in");
        foreach ((ReplicaInfo info, _) in all)
        {
            foreach (ReplicaState state in Enum.GetValues<ReplicaState>())
            {
                string word = state.ToString();
                text.Sample(
                    "vmm_replication_state", info.State == state ? 1 : 0, ("vm", info.Vm),
                    ("state", char.ToLowerInvariant(word[0]) + word[1..]));
            }
        }

        foreach ((string name, string type, string help, Func<ReplicaInfo, int, double?> read) in s_families)
        {
            text.Family(name, type, help);
            foreach ((ReplicaInfo info, int points) in all)
            {
                if (read(info, points) is { } value)
                {
                    text.Sample(name, value, ("vm", info.Vm));
                }
            }
        }
    }
}
