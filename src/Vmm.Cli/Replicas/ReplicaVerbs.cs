using Vmm.Cli.Nouns;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Replicas;

/// <summary>What the verbs of <c>vmmctl replica</c> do that ask more than once.</summary>
internal static class ReplicaVerbs
{
    /// <summary>One VM, or all of this host: those that go to other sites, and those that came.</summary>
    internal static async Task<int> StatusAsync(DaemonSession session, string? name, CancellationToken cancellation)
    {
        if (name is not null)
        {
            return ReplicaView.Show(session, await session.Client.ReplicaAsync(name, cancellation).ConfigureAwait(false));
        }

        ReplicaList all = await session.Client.ReplicasAsync(cancellation).ConfigureAwait(false);
        return session.IsJson ? session.Json(all, RestJson.Default.ReplicaList) : ReplicaView.List(session, all);
    }

    /// <summary>Begins a job and waits for its end; what it found stands in the events.</summary>
    internal static async Task<int> RunAsync(DaemonSession session, string name, string what, CancellationToken cancellation)
    {
        JobInfo job = await session.Client.ReplicaJobAsync(name, what, cancellation).ConfigureAwait(false);
        JobInfo ended = await JobFollower.LastOrCancelAsync(session, job.Id, cancellation).ConfigureAwait(false);
        if (ended.State != JobState.Done)
        {
            session.Fail(ended.Error?.Detail ?? $"{name}: {ended.Kind} was {JobCommands.Word(ended.State)}");
            return ExitCodes.Failed;
        }

        if (session.IsJson)
        {
            return session.Json(ended, RestJson.Default.JobInfo);
        }

        ReplicaInfo now = await session.Client.ReplicaAsync(name, cancellation).ConfigureAwait(false);
        string point = now.NewestPoint is { } time ? $"the newest point at {now.To} is of {Time(time)}" : $"{now.To} has no point yet";
        await session.Out.WriteLineAsync(
            what is "verify" ? $"{name}: all hashes are the same at both sites; {point}" : $"{name}: {point}").ConfigureAwait(false);
        return ExitCodes.Done;
    }
}
