using System.Globalization;
using Vmm.Cli.Nouns;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;
using Vmm.Storage.Backup;

namespace Vmm.Cli.Disks;

/// <summary><c>vmmctl backup create</c>.</summary>
internal static class BackupVerb
{
    /// <param name="session">Where to ask.</param>
    /// <param name="vm">The VM.</param>
    /// <param name="wish">Where to, and how.</param>
    /// <param name="cancellation">Ends the waiting; the job goes on.</param>
    internal static async Task<int> RunAsync(DaemonSession session, string vm, BackupRequest wish, CancellationToken cancellation)
    {
        JobInfo job = await session.Client.BackupAsync(vm, wish, cancellation).ConfigureAwait(false);
        JobInfo ended = await JobFollower.LastAsync(session, job.Id, cancellation).ConfigureAwait(false);
        if (ended.State != JobState.Done)
        {
            session.Fail(ended.Error?.Detail
                ?? $"{vm}: the backup was {JobCommands.Word(ended.State)}: {wish.Folder} has the points that it had");
            return ExitCodes.Failed;
        }

        string said = session.IsJson ? "" : (await session.Client.EventsOfAsync(vm, cancellation).ConfigureAwait(false)).Events
            .LastOrDefault(e => string.Equals(e.Kind, "backup", StringComparison.Ordinal) && e.At >= job.Created)?.Message
            ?? $"its point is in {wish.Folder}";
        return session.Done(ended, RestJson.Default.JobInfo, $"{vm}: {said}");
    }

    /// <param name="session">What is printed.</param>
    /// <param name="files">Files of this machine.</param>
    /// <param name="format">What they are.</param>
    /// <param name="wish">Where to, and how.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="UsageException">One is no file.</exception>
    internal static Task<int> OfFilesAsync(
        DaemonSession session, string[] files, string format, BackupWish wish, CancellationToken cancellation)
    {
        if (files.FirstOrDefault(file => !DiskFileCreate.IsFile(file)) is { } odd)
        {
            throw new UsageException($"{odd}: expected one VM, or files, each with a slash in its name, such as ./{odd}");
        }

        BackupSource[] sources = [.. files.Select((file, i) =>
            new BackupSource(string.Create(CultureInfo.InvariantCulture, $"disk{i}"), file, format))];
        return DiskFileSession.RunAsync(session, "create", progress =>
            BackupView.Created(session, wish.Folder, BackupCreator.Run(sources, wish, progress)), cancellation);
    }
}
