using System.Text.Json;

namespace Vmm.Contracts.Rest;

/// <summary>A snapshot of disks of a VM that is wanted.</summary>
/// <param name="Name">What goes into the names of new files; null: the time.</param>
/// <param name="Disks">Names of the disks, e.g. <c>disk0</c>; null: all that can be written.</param>
/// <param name="To">
/// Files of the differencing disks that are made, whole paths in storage folders, one for each of the disks; null: by the name.
/// </param>
/// <param name="QuiesceSeconds">
/// The guest's file systems are frozen meanwhile by the agent in it, at most so long, 1 to 60; null: they are not, unless it is required.
/// </param>
/// <param name="QuiesceRequired">No snapshot without that.</param>
public sealed record SnapshotWish(string? Name = null, IReadOnlyList<string>? Disks = null, IReadOnlyList<string>? To = null,
    int? QuiesceSeconds = null, bool QuiesceRequired = false);

/// <summary>Snapshots of VMs.</summary>
public static class SnapshotRequests
{
    /// <summary>Puts differencing disks on disks of a VM, all at one instant; a job.</summary>
    public static Task<JobInfo> SnapshotAsync(
        this VmmClient client, string name, SnapshotWish wish, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Post,
            VmmClient.Vm(name) + "/snapshot",
            JsonSerializer.Serialize(wish, RestJson.Default.SnapshotWish),
            RestJson.Default.JobInfo,
            cancellation);
}
