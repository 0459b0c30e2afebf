using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Nouns;

/// <summary>Follows a job to its end: with a progress bar for a person at a terminal, silently for a program.</summary>
internal static class JobFollower
{
    /// <summary>What a command does with the job it began: follow it, or say how to.</summary>
    internal static Task<int> EndAsync(DaemonSession session, JobInfo job, TimeSpan? wait, CancellationToken cancellation) =>
        job.State != JobState.Running ? Task.FromResult(Report(session, job))
        : wait is { } limit ? FollowAsync(session, job.Id, limit, cancellation)
        : Task.FromResult(session.Done(job, RestJson.Default.JobInfo, $"job {job.Id} is at it; 'vmmctl job wait {job.Id}' follows it"));

    /// <summary>Comes back when the job has ended or <paramref name="limit"/> has passed; the job goes on without us.</summary>
    internal static async Task<int> FollowAsync(DaemonSession session, string id, TimeSpan limit, CancellationToken cancellation)
    {
        using CancellationTokenSource deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(limit);
        try
        {
            return Report(session, await LastAsync(session, id, deadline.Token).ConfigureAwait(false));
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            session.Fail($"job {id}: has not ended after {limit.TotalSeconds} s; it goes on, 'vmmctl job wait {id}' follows it");
            return ExitCodes.Failed;
        }
    }

    /// <summary>The job when it has ended; a person at a terminal sees how far it is meanwhile.</summary>
    internal static Task<JobInfo> LastAsync(DaemonSession session, string id, CancellationToken cancellation) =>
        session.IsJson || !ReferenceEquals(session.Errors, Console.Error) || Console.IsErrorRedirected
            ? LastAsync(session, id, null, cancellation)
            : ProgressBar.ShowAsync(id, report => LastAsync(session, id, report, cancellation));

    /// <summary>The job when it has ended; Ctrl-C cancels it, and its end is waited for all the same.</summary>
    internal static async Task<JobInfo> LastOrCancelAsync(DaemonSession session, string id, CancellationToken cancellation)
    {
        try
        {
            return await LastAsync(session, id, cancellation).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            await session.Client.CancelJobAsync(id, CancellationToken.None).ConfigureAwait(false);
            return await LastAsync(session, id, CancellationToken.None).ConfigureAwait(false);
        }
    }

    private static async Task<JobInfo> LastAsync(DaemonSession session, string id, Action<JobInfo>? report, CancellationToken cancellation)
    {
        JobInfo? last = null;
        await foreach (JobInfo now in session.Client.WatchJobAsync(id, cancellation).ConfigureAwait(false))
        {
            report?.Invoke(now);
            last = now;
        }

        return last ?? throw new VmmApiException("bad-answer", $"job {id}: the daemon says nothing about it");
    }

    private static int Report(DaemonSession session, JobInfo job)
    {
        if (job.State == JobState.Done)
        {
            return session.Done(job, RestJson.Default.JobInfo, $"{job.Target}: {job.Kind} is done");
        }

        if (session.IsJson)
        {
            session.Json(job, RestJson.Default.JobInfo);
        }

        session.Fail(
            $"{job.Target}: {job.Kind} "
            + $"{(job.State == JobState.Failed ? "failed" : "was " + JobCommands.Word(job.State))}"
            + $"{(job.Error is { } error ? ": " + error.Detail : "")}");
        return ExitCodes.Failed;
    }
}
