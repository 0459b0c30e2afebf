using System.CommandLine;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Nouns;

/// <summary><c>vmmctl job …</c>: work that takes the daemon a while.</summary>
internal static class JobCommands
{
    internal static Command Create(GlobalOptions options)
    {
        Noun job = new("job", "Work that takes the daemon a while", options);
        Argument<string> id = new("id") { Description = "Id of the job" };
        Option<int?> timeout = new("--timeout") { Description = "Give up waiting after so long; the job goes on", HelpName = "seconds" };
        job.Add("list", "Jobs of the last hour", [], (session, _, cancellation) => ListAsync(session, cancellation));
        job.Add("show", "One job", id, async (session, which, cancellation) =>
            Show(session, await session.Client.JobAsync(which, cancellation).ConfigureAwait(false)));
        job.Add("cancel", "Ask a job to stop", id, async (session, which, cancellation) =>
        {
            JobInfo asked = await session.Client.CancelJobAsync(which, cancellation).ConfigureAwait(false);
            return session.Done(asked, RestJson.Default.JobInfo, asked.State == JobState.Running
                ? $"{asked.Id} was asked to stop"
                : $"{asked.Id} is {Word(asked.State)}");
        });
        job.Add("wait", "Come back when a job has ended, with exit code 0 when it is done", [id, timeout],
            (session, parsed, cancellation) =>
                JobFollower.FollowAsync(session, parsed.GetValue(id)!, Limit(parsed.GetValue(timeout)), cancellation));
        return job.Command;
    }

    internal static string Word(JobState state) => state.ToString().ToLowerInvariant();

    /// <summary>Timers do not reach further than 49 days.</summary>
    private static TimeSpan Limit(int? seconds) => seconds switch
    {
        null => Timeout.InfiniteTimeSpan,
        >= 0 and <= 1_000_000 => TimeSpan.FromSeconds(seconds.Value),
        _ => throw new UsageException($"--timeout {seconds}: expected a number of seconds from 0 to 1000000"),
    };

    private static async Task<int> ListAsync(DaemonSession session, CancellationToken cancellation)
    {
        JobList list = await session.Client.JobsAsync(cancellation).ConfigureAwait(false);
        if (session.IsJson)
        {
            return session.Json(list, RestJson.Default.JobList);
        }

        Table table = new("ID", "KIND", "TARGET", "STATE", "PROGRESS", "CREATED");
        foreach (JobInfo job in list.Jobs)
        {
            table.Add(job.Id, job.Kind, job.Target, Word(job.State), Percent(job), Time(job.Created));
        }

        return session.Table(table);
    }

    private static int Show(DaemonSession session, JobInfo job) =>
        session.IsJson ? session.Json(job, RestJson.Default.JobInfo) : session.Properties(
            ("id", job.Id), ("kind", job.Kind), ("target", job.Target), ("state", Word(job.State)), ("progress", Percent(job)),
            ("created", Time(job.Created)),
            ("ended", job.Ended is { } ended ? Time(ended) : "-"),
            ("error", job.Error is { } error ? $"{error.Detail} ({error.Code})" : "-"));

    private static string Percent(JobInfo job) => Number((long)(job.Progress * 100)) + " %";
}
