using System.Text.Json;

namespace Vmm.Contracts.Rest;

/// <summary>Replication of VMs, as it is asked for at the primary.</summary>
public static class ReplicaRequests
{
    /// <summary>Replicates a VM, or changes how.</summary>
    public static Task<ReplicaInfo> ReplicateAsync(
        this VmmClient client, string name, ReplicaWish wish, CancellationToken cancellation) => client.AskAsync(
        HttpMethod.Put, Path(name), JsonSerializer.Serialize(wish, RestJson.Default.ReplicaWish), RestJson.Default.ReplicaInfo,
            cancellation);

    /// <summary>How the replication of a VM goes.</summary>
    public static Task<ReplicaInfo> ReplicaAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, Path(name), null, RestJson.Default.ReplicaInfo, cancellation);

    /// <summary>Ends the replication of a VM; the points stay at the recovery site.</summary>
    public static Task EndReplicaAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.TellAsync(HttpMethod.Delete, Path(name), null, cancellation);

    /// <summary>Lets the replication of a VM wait.</summary>
    public static Task<ReplicaInfo> PauseReplicaAsync(
        this VmmClient client, string name, ReplicaPauseWish wish, CancellationToken cancellation) => client.AskAsync(
        HttpMethod.Post, Path(name) + "/pause", JsonSerializer.Serialize(wish, RestJson.Default.ReplicaPauseWish),
        RestJson.Default.ReplicaInfo, cancellation);

    /// <summary>Lets it go on.</summary>
    public static Task<ReplicaInfo> ResumeReplicaAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Post, Path(name) + "/resume", null, RestJson.Default.ReplicaInfo, cancellation);

    /// <summary>Begins a job of a replica.</summary>
    /// <param name="client">The daemon.</param>
    /// <param name="name">The VM.</param>
    /// <param name="what"><c>sync</c>, <c>resync</c> or <c>verify</c>.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    public static Task<JobInfo> ReplicaJobAsync(this VmmClient client, string name, string what, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Post, $"{Path(name)}/{what}", null, RestJson.Default.JobInfo, cancellation);

    /// <summary>All replicas of a host, of both directions.</summary>
    public static Task<ReplicaList> ReplicasAsync(this VmmClient client, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, "replicas", null, RestJson.Default.ReplicaList, cancellation);

    private static string Path(string name) => VmmClient.Vm(name) + "/replica";
}
