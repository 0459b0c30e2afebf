using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using static Vmm.Daemon.Vms.WorkerCalls;

namespace Vmm.Daemon.Vms;

/// <summary>Short commands of a running VM, and its counters.</summary>
/// <param name="vm">The VM.</param>
/// <param name="devices">Knows its taps.</param>
/// <param name="limit">Its resident limit.</param>
internal sealed class VmControls(VmSupervisor vm, VmDevices devices, VmResidentLimit limit)
{
    /// <exception cref="ApiException">It cannot be paused now.</exception>
    internal Task PauseAsync(CancellationToken cancellation) =>
        RunAsync(VmOperation.Pause, VmEvent.Paused, worker => worker.PauseAsync(cancellation), cancellation);

    /// <exception cref="ApiException">It cannot go on now.</exception>
    internal Task ResumeAsync(CancellationToken cancellation) =>
        RunAsync(VmOperation.Resume, VmEvent.Resumed, worker => worker.ResumeAsync(cancellation), cancellation);

    /// <exception cref="ApiException">It has no power button now.</exception>
    internal Task PressPowerButtonAsync(CancellationToken cancellation) =>
        RunAsync(VmOperation.PowerButton, VmEvent.PowerButton, worker => worker.PressPowerButtonAsync(cancellation), cancellation);

    /// <exception cref="ApiException">It cannot be woken now.</exception>
    internal Task WakeAsync(CancellationToken cancellation) =>
        RunAsync(VmOperation.Wake, VmEvent.Wake, worker => worker.WakeAsync(cancellation), cancellation);

    /// <summary>Counters now.</summary>
    /// <exception cref="ApiException">It does not run, or does not answer.</exception>
    internal async Task<WorkerStats> StatsAsync(CancellationToken cancellation)
    {
        IWorker worker = vm.RequireWorker();
        WorkerStats counted = await CallAsync(() => worker.GetStatsAsync(cancellation)).ConfigureAwait(false);
        return TapCounters.Fill(counted, devices.OwnTaps(), vm.Store.Record.Id) with
        {
            Throttling = worker.CpuThrottling,
            Paging = limit.Describe(counted.Paging),
        };
    }

    /// <summary>Everything of the machine that has state, and what happens to it; also while a save or a pause goes on.</summary>
    /// <exception cref="ApiException">It does not run, or does not answer.</exception>
    internal Task<UnitList> UnitsAsync(CancellationToken cancellation) =>
        CallAsync(() => vm.RequireWorker().UnitsAsync(cancellation));

    /// <summary>Changes the rate limits of a device.</summary>
    /// <exception cref="ApiException">It does not run, has no such device, or the limits are out of range.</exception>
    internal Task LimitDeviceAsync(LimitsBody limits, CancellationToken cancellation) =>
        CallAsync(() => vm.RequireWorker().LimitAsync(limits, cancellation));

    private Task RunAsync(VmOperation operation, VmEvent @event, Func<IWorker, Task> command, CancellationToken cancellation) =>
        vm.Operations.RunAsync(operation, vm.Name, async () =>
        {
            IWorker worker = vm.RequireWorkerFor(@event);
            await CallAsync(() => command(worker)).ConfigureAwait(false);
            // A disk may have had it paused again before this is known here.
            vm.MoveIfPossible(@event, () => @event != VmEvent.Resumed || worker.State != VmState.Paused);
        }, cancellation);
}
