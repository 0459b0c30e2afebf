using Vmm.Cli.Nouns;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Vms;

/// <summary><c>vm save</c> and <c>vm restore</c>: jobs that are followed to their end.</summary>
internal static class SaveVerbs
{
    internal static async Task<int> SaveAsync(DaemonSession session, string name, string folder, CancellationToken cancellation)
    {
        string whole = Path.GetFullPath(folder);
        JobInfo job = await session.Client.SaveAsync(name, whole, cancellation).ConfigureAwait(false);
        return await EndAsync(
            session, job, $"is saved in {whole}; 'vmmctl vm restore {whole}' goes on with it", cancellation).ConfigureAwait(false);
    }

    internal static async Task<int> RestoreAsync(DaemonSession session, string folder, bool lazily, CancellationToken cancellation)
    {
        string whole = Path.GetFullPath(folder);
        JobInfo job = await session.Client.RestoreAsync(
            new RestoreRequest(whole, lazily ? true : null), cancellation).ConfigureAwait(false);
        string done = lazily
            ? $"runs where it was saved; until the event memory-restored its memory comes from {whole}, which must stay as it is"
            : "runs where it was saved";
        return await EndAsync(session, job, done, cancellation).ConfigureAwait(false);
    }

    private static async Task<int> EndAsync(DaemonSession session, JobInfo job, string done, CancellationToken cancellation)
    {
        JobInfo ended = await JobFollower.LastAsync(session, job.Id, cancellation).ConfigureAwait(false);
        if (ended.State != JobState.Done)
        {
            session.Fail($"{job.Target}: {ended.Error?.Detail ?? $"{job.Kind} was {JobCommands.Word(ended.State)}"}");
            return ExitCodes.Failed;
        }

        VmInfo vm = await session.Client.ShowAsync(job.Target, cancellation).ConfigureAwait(false);
        return session.Done(vm, RestJson.Default.VmInfo, $"{vm.Name} {done}");
    }
}
