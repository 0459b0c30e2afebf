using System.Collections.Concurrent;
using Microsoft.Data.Sqlite;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Inventory;

namespace Vmm.Daemon.Vms;

/// <summary>
/// Work that takes time: it goes on when its client leaves, tells how far it is, and can be cancelled. Ended ones are kept for an hour, a
/// thousand at most.
/// </summary>
internal sealed class Jobs(JobTable jobs, EventHub events, ILogger log) : IHostedService
{
    private const int Kept = 1000;
    private static readonly TimeSpan s_kept = TimeSpan.FromHours(1);

    private readonly ConcurrentDictionary<string, Job> _jobs = new(StringComparer.Ordinal);
    private volatile bool _closing;

    /// <summary>Those of an earlier daemon come with it; what that one did not finish was interrupted.</summary>
    public Task StartAsync(CancellationToken cancellationToken)
    {
        foreach (JobInfo job in jobs.All())
        {
            JobInfo known = job.State == JobState.Running ? job with { State = JobState.Interrupted, Ended = DateTimeOffset.UtcNow } : job;
            _jobs[job.Id] = new Job(known, new CancellationTokenSource()) { Work = Task.CompletedTask };
            jobs.Save(known);
        }

        Forget();
        return Task.CompletedTask;
    }

    /// <summary>Begins one.</summary>
    /// <param name="kind">What is done.</param>
    /// <param name="target">To what.</param>
    /// <param name="owner">Who asked for it.</param>
    /// <param name="work">Does it, tells how far it is from 0 to 1, and cleans up when it is cancelled.</param>
    internal JobInfo Start(string kind, string target, Principal owner, Func<Action<double>, CancellationToken, Task> work) =>
        Begin(kind, target, owner, job => work(progress => Report(job, progress), job.Cancel.Token));

    /// <summary>Begins the move of a VM.</summary>
    /// <inheritdoc cref="Start"/>
    internal JobInfo StartMove(string kind, string target, Principal owner, Func<Action<MoveProgress>, CancellationToken, Task> work) =>
        Begin(kind, target, owner, job => work(
            progress =>
            {
                job.Info = job.Info with { Move = progress };
                Report(job, progress.Part());
            },
            job.Cancel.Token));

    private JobInfo Begin(string kind, string target, Principal owner, Func<Job, Task> work)
    {
        Forget();
        Job job = new(
            new JobInfo(Guid.NewGuid().ToString("N"), kind, target, JobState.Running, 0, DateTimeOffset.UtcNow, Owner: owner.Name),
            new CancellationTokenSource());
        jobs.Save(job.Info);
        _jobs[job.Info.Id] = job;
        events.Publish("job", "", job: job.Info);
        JobInfo begun = job.Info;
        job.Work = Task.Run(() => RunAsync(job, work));
        return begun;
    }

    /// <summary>All, the newest first.</summary>
    internal JobList List() => new([.. _jobs.Values.Select(j => j.Info).OrderByDescending(j => j.Created)]);

    /// <summary>One.</summary>
    /// <exception cref="ApiException">There is none.</exception>
    internal JobInfo Get(string id) => Find(id).Info;

    /// <summary>Asks one to stop; one that is over stays as it is.</summary>
    /// <exception cref="ApiException">There is none, or it is somebody else's.</exception>
    internal async Task<JobInfo> CancelAsync(string id, Principal who)
    {
        Job job = Find(id);
        if (who.Role < Role.Admin && !string.Equals(job.Info.Owner, who.Name, StringComparison.Ordinal))
        {
            throw new ApiException(
                403, "forbidden", "not allowed", $"job {id} is {job.Info.Owner ?? "nobody"}'s: only they and administrators may cancel it");
        }

        await job.Cancel.CancelAsync().ConfigureAwait(false);
        await Task.WhenAny(job.Work, Task.Delay(TimeSpan.FromSeconds(5))).ConfigureAwait(false);
        return job.Info;
    }

    /// <summary>Stops what still runs; it is kept as interrupted.</summary>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        _closing = true;
        foreach (Job job in _jobs.Values)
        {
            await job.Cancel.CancelAsync().ConfigureAwait(false);
        }

        // Time of their own, whatever the parts that stopped before took: a job cleans up behind itself.
        await Task.WhenAny(
            Task.WhenAll(_jobs.Values.Select(j => j.Work)),
            Task.Delay(TimeSpan.FromSeconds(5), CancellationToken.None)).ConfigureAwait(false);
    }

    private async Task RunAsync(Job job, Func<Job, Task> work)
    {
        JobState state = JobState.Done;
        Problem? error = null;
        try
        {
            await work(job).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (job.Cancel.IsCancellationRequested)
        {
            state = _closing ? JobState.Interrupted : JobState.Cancelled;
        }
        catch (ApiException e)
        {
            (state, error) = (JobState.Failed, e.Problem);
        }
#pragma warning disable CA1031 // The last stop: a job that fails says so, and the daemon goes on.
        catch (Exception e)
#pragma warning restore CA1031
        {
            DaemonLog.JobFault(log, e, job.Info.Kind, job.Info.Target, job.Info.Id);
            (state, error) = (JobState.Failed, DaemonFault.ToProblem(e, "the daemon's log has the details"));
        }

        job.Info = job.Info with
        {
            State = state,
            Error = error,
            Progress = state == JobState.Done ? 1 : job.Info.Progress,
            Ended = DateTimeOffset.UtcNow
        };
        events.Publish("job", "", job: job.Info);
        try
        {
            jobs.Save(job.Info);
        }
        catch (Exception e) when (e is SqliteException or ObjectDisposedException or InvalidOperationException)
        {
            DaemonLog.JobFault(log, e, job.Info.Kind, job.Info.Target, job.Info.Id);
        }
    }

    /// <summary>Whole per cents only, and an event for every tenth.</summary>
    private void Report(Job job, double progress)
    {
        double next = Math.Floor(Math.Clamp(progress, 0, 1) * 100) / 100, before = job.Info.Progress;
        if (next > before)
        {
            job.Info = job.Info with { Progress = next };
            if (Math.Floor(next * 10) > Math.Floor(before * 10))
            {
                events.Publish("job", "", job: job.Info);
            }
        }
    }

    private Job Find(string id) => _jobs.TryGetValue(id, out Job? job)
        ? job
        : throw new ApiException(404, "job-not-found", "no such job", $"{id}: there is no job with this id; jobs are kept for an hour");

    private void Forget()
    {
        DateTimeOffset old = DateTimeOffset.UtcNow - s_kept;
        Job[] ended = [.. _jobs.Values.Where(j => j.Info.Ended is not null).OrderByDescending(j => j.Info.Ended)];
        foreach (Job job in ended.Where((j, i) => i >= Kept || j.Info.Ended < old))
        {
            _jobs.TryRemove(job.Info.Id, out _);
            jobs.Remove(job.Info.Id);
            job.Cancel.Dispose();
        }
    }

    private sealed class Job(JobInfo info, CancellationTokenSource cancel)
    {
        private volatile JobInfo _info = info;

        internal JobInfo Info { get => _info; set => _info = value; }

        internal CancellationTokenSource Cancel => cancel;

        internal Task Work { get; set; } = Task.CompletedTask;
    }
}
