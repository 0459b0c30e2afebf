using System.Text.Json;

namespace Vmm.Contracts.Rest;

/// <summary>A backup of a VM that is wanted.</summary>
/// <param name="Folder">The folder of its points on the host, a whole path in a storage folder; made when the one around it is there.
/// </param>
/// <param name="Disks">Names of the disks, e.g. <c>disk0</c>; null: all that can be written.</param>
/// <param name="QuiesceSeconds">
/// The guest's file systems are frozen at the instant of the point by the agent in it, at most so long, 1 to 60; null: they are not, unless
/// it is required.
/// </param>
/// <param name="QuiesceRequired">No backup without that.</param>
/// <param name="Full">All of each disk is stored, whatever the point before has.</param>
/// <param name="BytesPerSecond">Most bytes to read in a second; null is without a limit.</param>
public sealed record BackupRequest(
    string Folder,
    IReadOnlyList<string>? Disks = null,
    int? QuiesceSeconds = null,
    bool QuiesceRequired = false,
    bool Full = false,
    ulong? BytesPerSecond = null);

/// <summary>Backups of VMs.</summary>
public static class BackupRequests
{
    /// <summary>Makes a point of the backup of a VM; a job.</summary>
    public static Task<JobInfo> BackupAsync(
        this VmmClient client, string name, BackupRequest wish, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Post,
            VmmClient.Vm(name) + "/backup",
            JsonSerializer.Serialize(wish, RestJson.Default.BackupRequest),
            RestJson.Default.JobInfo,
            cancellation);
}
