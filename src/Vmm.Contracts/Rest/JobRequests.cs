using System.Runtime.CompilerServices;

namespace Vmm.Contracts.Rest;

/// <summary>Work of the daemon that takes time.</summary>
public static class JobRequests
{
    /// <summary>Jobs of the last hour.</summary>
    public static Task<JobList> JobsAsync(this VmmClient client, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, "jobs", null, RestJson.Default.JobList, cancellation);

    /// <summary>One job.</summary>
    public static Task<JobInfo> JobAsync(this VmmClient client, string id, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, Job(id), null, RestJson.Default.JobInfo, cancellation);

    /// <summary>Asks a job to stop; the answer is the job as it is then, perhaps still at it.</summary>
    public static Task<JobInfo> CancelJobAsync(this VmmClient client, string id, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Post, Job(id) + "/cancel", null, RestJson.Default.JobInfo, cancellation);

    /// <summary>A job as it goes on, the last one as it ended.</summary>
    public static async IAsyncEnumerable<JobInfo> WatchJobAsync(
        this VmmClient client, string id, [EnumeratorCancellation] CancellationToken cancellation)
    {
        for (int delay = 20; ; delay = Math.Min(delay * 2, 500))
        {
            JobInfo job = await client.JobAsync(id, cancellation).ConfigureAwait(false);
            yield return job;
            if (job.State != JobState.Running)
            {
                yield break;
            }

            await Task.Delay(delay, cancellation).ConfigureAwait(false);
        }
    }

    private static string Job(string id) => "jobs/" + Uri.EscapeDataString(id);
}
