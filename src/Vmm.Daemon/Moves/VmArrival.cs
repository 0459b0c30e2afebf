using Vmm.Daemon.Vms;
using Vmm.Daemon.Workers;

namespace Vmm.Daemon.Moves;

/// <summary>A VM that comes from another host.</summary>
/// <param name="vm">The VM.</param>
/// <param name="devices">Learns what is plugged.</param>
/// <param name="cpu">Learns of its time on host CPUs.</param>
internal sealed class VmArrival(VmSupervisor vm, VmDevices devices, VmCpuTime cpu)
{
    private static readonly TimeSpan s_start = TimeSpan.FromSeconds(30);

    /// <summary>Nothing else is done with the VM until that is over.</summary>
    internal void Hold(Task over) =>
        _ = vm.Operations.RunAsync(VmOperation.Migrate, vm.Name, () => over, CancellationToken.None);

    /// <summary>It is decided that the VM is this host's: nothing of this can be given up.</summary>
    /// <param name="worker">Has it.</param>
    /// <returns>Why it does not go on; null: it does, or is paused as it was.</returns>
    internal async Task<string?> TakeAsync(IWorker worker)
    {
        vm.Store.Change(record => record with { Move = null, WantedOn = true });
        vm.Store.CommitOrLog(); // the decision says the same to the next daemon
        vm.AttachWorker(worker);
        string? problem = null;
        try
        {
            if (worker.State != LifeCycle.VmState.Paused)
            {
                using CancellationTokenSource deadline = new(s_start);
                await worker.StartAsync(deadline.Token).ConfigureAwait(false);
            }
        }
        catch (Exception cause) when (cause is WorkerException or OperationCanceledException)
        {
            problem = cause.Message;
        }

        vm.Handover.Settle(worker);
        if (problem is null)
        {
            cpu.Learn(worker);
            await devices.LearnAsync(worker, CancellationToken.None).ConfigureAwait(false);
            vm.Events.Publish("arrived", vm.Name, message: "came from another host");
        }

        return problem;
    }
}
