using System.Globalization;
using Vmm.Cli.Nouns;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;
using Vmm.LifeCycle;

namespace Vmm.Cli.Vms;

/// <summary>
/// <c>vm upgrade</c> and <c>vm migrate</c>: jobs that are followed to their end, and cancelled by Ctrl-C; <c>vm settle</c>.
/// </summary>
internal static class MoveVerbs
{
    internal static async Task<int> UpgradeAsync(
        DaemonSession session, string name, UpgradeRequest request, CancellationToken cancellation)
    {
        JobInfo job = await session.Client.UpgradeAsync(name, request, cancellation).ConfigureAwait(false);
        JobInfo ended = await JobFollower.LastOrCancelAsync(session, job.Id, cancellation).ConfigureAwait(false);
        if (ended.State != JobState.Done)
        {
            return Failed(session, ended);
        }

        VmInfo vm = await session.Client.ShowAsync(name, cancellation).ConfigureAwait(false);
        string pid = vm.WorkerProcessId is { } id ? DaemonSession.Number(id) : "-", still = ended.Move is { } move
            ? string.Create(CultureInfo.InvariantCulture, $"; it stood still for {move.DowntimeMilliseconds:0.#} ms")
            : "";
        return session.Done(vm, RestJson.Default.VmInfo, $"{name} is in a new worker (process {pid}){still}");
    }

    /// <summary>One after the other: what fails for one does not keep the others.</summary>
    internal static async Task<int> UpgradeAllAsync(DaemonSession session, UpgradeRequest request, CancellationToken cancellation)
    {
        bool failed = false, any = false;
        foreach (VmInfo vm in (await session.Client.ListAsync(cancellation).ConfigureAwait(false)).Vms.Where(vm => vm.State.IsUp()))
        {
            any = true;
            try
            {
                failed |= await UpgradeAsync(session, vm.Name, request, cancellation).ConfigureAwait(false) != ExitCodes.Done;
            }
            catch (VmmApiException e)
            {
                session.Fail($"{vm.Name}: {e.Message}");
                failed = true;
            }
        }

        if (!any && !session.IsJson)
        {
            await session.Out.WriteLineAsync("no VM runs").ConfigureAwait(false);
        }

        return failed ? ExitCodes.Failed : ExitCodes.Done;
    }

    /// <summary><c>vm migrate</c>.</summary>
    internal static async Task<int> MigrateAsync(
        DaemonSession session, string name, MigrateRequest request, CancellationToken cancellation)
    {
        JobInfo job = await session.Client.MigrateAsync(name, request, cancellation).ConfigureAwait(false);
        JobInfo ended = await JobFollower.LastOrCancelAsync(session, job.Id, cancellation).ConfigureAwait(false);
        if (ended.State != JobState.Done)
        {
            return Failed(session, ended);
        }

        string still = ended.Move is { } move
            ? string.Create(CultureInfo.InvariantCulture, $"; it stood still for {move.DowntimeMilliseconds:0.#} ms until all was sent")
            : "";
        return session.Done(ended, RestJson.Default.JobInfo, $"{name} is on {request.To}{still}");
    }

    /// <summary><c>vm settle</c>.</summary>
    internal static async Task<int> SettleAsync(
        DaemonSession session, string name, SettleRequest request, CancellationToken cancellation)
    {
        await session.Client.SettleAsync(name, request, cancellation).ConfigureAwait(false);
        return session.Done(request, RestJson.Default.SettleRequest, request.Where is SettleRequest.Here
            ? $"{name} is here: 'vmmctl vm show {name}' tells how it goes on"
            : $"{name} is gone from this host");
    }

    private static int Failed(DaemonSession session, JobInfo job)
    {
        session.Fail(job.Error is { } error ? error.Detail
            : $"{job.Target}: {job.Kind} was {JobCommands.Word(job.State)}: the VM is where it was");
        return ExitCodes.Failed;
    }
}
