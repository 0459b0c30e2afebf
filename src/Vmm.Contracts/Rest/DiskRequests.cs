using System.Text.Json;

namespace Vmm.Contracts.Rest;

/// <summary>Disks in the daemon's folder of disks.</summary>
public static class DiskRequests
{
    /// <summary>All disks.</summary>
    public static Task<DiskList> DisksAsync(this VmmClient client, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, "disks", null, RestJson.Default.DiskList, cancellation);

    /// <summary>One disk.</summary>
    public static Task<DiskInfo> DiskAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, Disk(name), null, RestJson.Default.DiskInfo, cancellation);

    /// <summary>Makes a disk; the job is done when it can be used.</summary>
    public static Task<JobInfo> CreateDiskAsync(this VmmClient client, DiskRequest wish, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Post, "disks", JsonSerializer.Serialize(wish, RestJson.Default.DiskRequest), RestJson.Default.JobInfo, cancellation);

    /// <summary>Deletes a disk that no spec names.</summary>
    public static Task DeleteDiskAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.TellAsync(HttpMethod.Delete, Disk(name), null, cancellation);

    private static string Disk(string name) => "disks/" + Uri.EscapeDataString(name);
}
