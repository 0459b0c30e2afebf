using System.Text.Json;

namespace Vmm.Contracts.Rest;

/// <summary>Moves of VMs.</summary>
public static class MoveRequests
{
    /// <summary>Lets a VM go on in a new worker of its host.</summary>
    /// <returns>The job.</returns>
    public static Task<JobInfo> UpgradeAsync(
        this VmmClient client, string name, UpgradeRequest request, CancellationToken cancellation) => client.AskAsync(
            HttpMethod.Post, VmmClient.Vm(name) + "/upgrade", JsonSerializer.Serialize(request, RestJson.Default.UpgradeRequest),
            RestJson.Default.JobInfo, cancellation);

    /// <summary>Lets a VM go on on another host.</summary>
    /// <returns>The job.</returns>
    public static Task<JobInfo> MigrateAsync(
        this VmmClient client, string name, MigrateRequest request, CancellationToken cancellation) => client.AskAsync(
            HttpMethod.Post, VmmClient.Vm(name) + "/migrate", JsonSerializer.Serialize(request, RestJson.Default.MigrateRequest),
            RestJson.Default.JobInfo, cancellation);

    /// <summary>Says where a VM is that was handed over to a host that is lost.</summary>
    public static Task SettleAsync(this VmmClient client, string name, SettleRequest request, CancellationToken cancellation) =>
        client.TellAsync(
            HttpMethod.Post, VmmClient.Vm(name) + "/settle", JsonSerializer.Serialize(request, RestJson.Default.SettleRequest),
            cancellation);
}
