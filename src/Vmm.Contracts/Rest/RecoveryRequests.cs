using System.Text.Json;

namespace Vmm.Contracts.Rest;

/// <summary>Replicas of VMs of other hosts: recovery points and failovers.</summary>
public static class RecoveryRequests
{
    /// <summary>One replica, with its recovery points.</summary>
    public static Task<RecoveryInfo> RecoveryAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, Replica(name), null, RestJson.Default.RecoveryInfo, cancellation);

    /// <summary>Deletes a replica with its points.</summary>
    public static Task DeleteReplicaAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.TellAsync(HttpMethod.Delete, Replica(name), null, cancellation);

    /// <summary>Makes a VM of a recovery point, beside the VM.</summary>
    /// <returns>The job.</returns>
    public static Task<JobInfo> TestFailoverAsync(
        this VmmClient client, string name, FailoverWish wish, CancellationToken cancellation) =>
        AskAsync(client, name, "test-failover", wish, cancellation);

    /// <summary>Removes the VM of a test failover with its disks.</summary>
    public static Task DeleteTestAsync(this VmmClient client, string name, string vm, CancellationToken cancellation) =>
        client.TellAsync(HttpMethod.Delete, $"{Replica(name)}/tests/{Uri.EscapeDataString(vm)}", null, cancellation);

    /// <summary>Lets the VM go on here, as it was at a recovery point.</summary>
    /// <returns>The job.</returns>
    public static Task<JobInfo> FailoverAsync(this VmmClient client, string name, FailoverWish wish, CancellationToken cancellation) =>
        AskAsync(client, name, "failover", wish, cancellation);

    /// <summary>Makes a failover final.</summary>
    public static Task<RecoveryInfo> CommitFailoverAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Post, Replica(name) + "/commit", null, RestJson.Default.RecoveryInfo, cancellation);

    /// <summary>Takes a failover back.</summary>
    /// <returns>The job.</returns>
    public static Task<JobInfo> CancelFailoverAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Post, Replica(name) + "/cancel", null, RestJson.Default.JobInfo, cancellation);

    /// <summary>Reads all of a recovery point and compares its hashes.</summary>
    /// <returns>The job.</returns>
    public static Task<JobInfo> VerifyReplicaPointAsync(
        this VmmClient client, string name, FailoverWish wish, CancellationToken cancellation) =>
        AskAsync(client, name, "verify", wish, cancellation);

    private static Task<JobInfo> AskAsync(
        VmmClient client, string name, string verb, FailoverWish wish, CancellationToken cancellation) => client.AskAsync(
            HttpMethod.Post, $"{Replica(name)}/{verb}", JsonSerializer.Serialize(wish, RestJson.Default.FailoverWish),
            RestJson.Default.JobInfo, cancellation);

    private static string Replica(string name) => "replicas/" + Uri.EscapeDataString(name);
}
