using Vmm.Cli.Nouns;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm snapshot</c>.</summary>
internal static class SnapshotVerb
{
    /// <param name="session">Where to ask.</param>
    /// <param name="name">The VM.</param>
    /// <param name="wish">Of which disks, and how; files may be named from this folder.</param>
    /// <param name="cancellation">Ends the waiting; the job goes on.</param>
    internal static async Task<int> RunAsync(DaemonSession session, string name, SnapshotWish wish, CancellationToken cancellation)
    {
        if (wish.To is { } to && (to.Count != (wish.Disks?.Count ?? 0) || wish.Name is not null))
        {
            throw new UsageException("--to: expected one for each --disk, in their order, and no --name");
        }

        wish = wish with { To = wish.To is null ? null : [.. wish.To.Select(Path.GetFullPath)] };
        JobInfo job = await session.Client.SnapshotAsync(name, wish, cancellation).ConfigureAwait(false);
        JobInfo ended = await JobFollower.LastAsync(session, job.Id, cancellation).ConfigureAwait(false);
        if (ended.State != JobState.Done)
        {
            session.Fail(ended.Error?.Detail ?? $"{name}: the snapshot was {JobCommands.Word(ended.State)}: the disks are as they were");
            return ExitCodes.Failed;
        }

        string quiesced = wish.QuiesceSeconds is null || session.IsJson ? ""
            : "; " + await QuiescedAsync(session, name, job.Created, cancellation).ConfigureAwait(false);
        return session.Done(
            ended, RestJson.Default.JobInfo, $"{name} goes on in new differencing disks: vmmctl vm devices {name}{quiesced}");
    }

    private static async Task<string> QuiescedAsync(
        DaemonSession session, string name, DateTimeOffset since, CancellationToken cancellation) =>
        (await session.Client.EventsOfAsync(name, cancellation).ConfigureAwait(false)).Events
            .LastOrDefault(e => string.Equals(e.Kind, "guest-quiesce", StringComparison.Ordinal) && e.At >= since)?.Message
            ?? "the VM is off, nothing was to be frozen";
}
