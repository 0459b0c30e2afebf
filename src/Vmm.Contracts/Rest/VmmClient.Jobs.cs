using System.Net;
using System.Runtime.CompilerServices;
using System.Text.Json;

namespace Vmm.Contracts.Rest;

/// <content>Jobs and disks.</content>
public sealed partial class VmmClient
{
    /// <summary>Jobs of the last hour.</summary>
    public Task<JobList> JobsAsync(CancellationToken cancellation) =>
        SendAsync(HttpMethod.Get, "jobs", null, RestJson.Default.JobList, cancellation);

    /// <summary>One job.</summary>
    public Task<JobInfo> JobAsync(string id, CancellationToken cancellation) =>
        SendAsync(HttpMethod.Get, "jobs/" + Uri.EscapeDataString(id), null, RestJson.Default.JobInfo, cancellation);

    /// <summary>Asks a job to stop; the answer is the job as it is then, perhaps still at it.</summary>
    public Task<JobInfo> CancelJobAsync(string id, CancellationToken cancellation) =>
        SendAsync(HttpMethod.Post, "jobs/" + Uri.EscapeDataString(id) + "/cancel", null, RestJson.Default.JobInfo, cancellation);

    /// <summary>A job as it goes on, the last one as it ended.</summary>
    public async IAsyncEnumerable<JobInfo> WatchJobAsync(string id, [EnumeratorCancellation] CancellationToken cancellation)
    {
        for (int delay = 20; ; delay = Math.Min(delay * 2, 500))
        {
            JobInfo job = await JobAsync(id, cancellation).ConfigureAwait(false);
            yield return job;
            if (job.State != JobState.Running)
            {
                yield break;
            }

            await Task.Delay(delay, cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>All disks in the daemon's folder of disks.</summary>
    public Task<DiskList> DisksAsync(CancellationToken cancellation) =>
        SendAsync(HttpMethod.Get, "disks", null, RestJson.Default.DiskList, cancellation);

    /// <summary>One disk.</summary>
    public Task<DiskInfo> DiskAsync(string name, CancellationToken cancellation) =>
        SendAsync(HttpMethod.Get, "disks/" + Uri.EscapeDataString(name), null, RestJson.Default.DiskInfo, cancellation);

    /// <summary>Makes a disk; the job is done when it can be used.</summary>
    public Task<JobInfo> CreateDiskAsync(DiskRequest wish, CancellationToken cancellation) =>
        SendAsync(
            HttpMethod.Post, "disks", JsonSerializer.Serialize(wish, RestJson.Default.DiskRequest), RestJson.Default.JobInfo, cancellation);

    /// <summary>Deletes a disk that no spec names.</summary>
    public Task DeleteDiskAsync(string name, CancellationToken cancellation) =>
        DeletePathAsync("disks/" + Uri.EscapeDataString(name), cancellation);

    /// <summary>Saves a VM into a folder of the daemon's host; the job is done when it is saved and its worker is gone.</summary>
    public Task<JobInfo> SaveAsync(string name, string folder, CancellationToken cancellation) => SendAsync(
        HttpMethod.Post,
        Vm(name) + "/save",
        JsonSerializer.Serialize(new SavedFolderRequest(folder), RestJson.Default.SavedFolderRequest),
        RestJson.Default.JobInfo,
        cancellation);

    /// <summary>Goes on with a saved VM; the job is done when it runs.</summary>
    public Task<JobInfo> RestoreAsync(string folder, CancellationToken cancellation) => SendAsync(
        HttpMethod.Post,
        "restore",
        JsonSerializer.Serialize(new SavedFolderRequest(folder), RestJson.Default.SavedFolderRequest),
        RestJson.Default.JobInfo,
        cancellation);

    /// <summary>Presses the power button and answers at once with the job that waits for the guest and then pulls the plug.</summary>
    public async Task<JobInfo> BeginStopAsync(string name, TimeSpan graceful, CancellationToken cancellation)
    {
        using HttpRequestMessage request = new(
            HttpMethod.Post, FormattableString.Invariant($"{Vm(name)}/stop?graceful={(int)graceful.TotalSeconds}"));
        request.Headers.Add("Prefer", "respond-async"); // RFC 7240, section 4.1
        using HttpResponseMessage response = await SendAsync(
            request, HttpCompletionOption.ResponseContentRead, cancellation).ConfigureAwait(false);
        return await ReadAsync(response, RestJson.Default.JobInfo, cancellation).ConfigureAwait(false);
    }

    /// <summary>
    /// Starts a VM. Answers with the VM when it runs within <paramref name="wait"/> (whole seconds, at most a minute), else with the job
    /// that goes on with the start: to take hundreds of GiB of huge pages takes minutes.
    /// </summary>
    public async Task<(VmInfo? Vm, JobInfo? Job)> StartAsync(string name, TimeSpan wait, CancellationToken cancellation)
    {
        using HttpRequestMessage request = new(HttpMethod.Post, Vm(name) + "/start");
        // RFC 7240, sections 4.1 and 4.3
        request.Headers.Add("Prefer", FormattableString.Invariant($"respond-async, wait={(int)wait.TotalSeconds}"));
        using HttpResponseMessage response = await SendAsync(
            request, HttpCompletionOption.ResponseContentRead, cancellation).ConfigureAwait(false);
        return response.StatusCode == HttpStatusCode.Accepted
            ? (null, await ReadAsync(response, RestJson.Default.JobInfo, cancellation).ConfigureAwait(false))
            : (await ReadAsync(response, RestJson.Default.VmInfo, cancellation).ConfigureAwait(false), null);
    }

    private async Task DeletePathAsync(string path, CancellationToken cancellation)
    {
        using HttpResponseMessage response = await ExchangeAsync(HttpMethod.Delete, path, null, null, cancellation).ConfigureAwait(false);
    }
}
