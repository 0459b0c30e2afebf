using Microsoft.Extensions.Logging;
using Vmm.Daemon.Logging;
using Vmm.Daemon.Workers;

namespace Vmm.Daemon.Vms;

/// <summary>
/// Takes over the workers that an earlier daemon left, and ends those whose VM is not known. One worker is no reason for the daemon not to
/// start: what goes wrong is logged.
/// </summary>
internal static class WorkerAdoption
{
    /// <summary>Gives a worker to its VM.</summary>
    /// <param name="vm">The VM.</param>
    /// <param name="worker">Its worker.</param>
    /// <param name="others">Workers of it that do not count.</param>
    /// <param name="log">Takes what happens.</param>
    /// <param name="ending">The daemon ends: the next one adopts it.</param>
    internal static async Task AdoptAsync(
        ManagedVm vm, IWorker worker, IReadOnlyList<IWorker> others, ILogger log, CancellationToken ending)
    {
        try
        {
            await vm.AdoptAsync(worker, others, ending).ConfigureAwait(false);
            DaemonLog.Adopted(log, vm.Record.Name, worker.ProcessId);
        }
        catch (OperationCanceledException) when (ending.IsCancellationRequested)
        {
            // The next daemon adopts it.
        }
#pragma warning disable CA1031 // One VM is no reason for the daemon not to start.
        catch (Exception e)
#pragma warning restore CA1031
        {
            DaemonLog.AdoptionFault(log, e, vm.Record.Name);
        }
    }

    /// <summary>Ends a worker that nobody knows.</summary>
    /// <inheritdoc cref="AdoptAsync"/>
    internal static async Task EndStrangerAsync(IWorker worker, ILogger log, CancellationToken ending)
    {
        DaemonLog.Stranger(log, worker.ProcessId, worker.VmId);
        try
        {
            await worker.StopAsync(ending).ConfigureAwait(false);
            await worker.DisposeAsync().ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (ending.IsCancellationRequested)
        {
            // The next daemon ends it.
        }
#pragma warning disable CA1031 // A worker that nobody knows is no reason for the daemon not to start.
        catch (Exception e)
#pragma warning restore CA1031
        {
            DaemonLog.AdoptionFault(log, e, worker.VmId);
        }
    }
}
