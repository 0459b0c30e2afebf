using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using static Vmm.Daemon.Vms.WorkerCalls;

namespace Vmm.Daemon.Vms;

/// <summary>Stops of a VM: the plug, and the power button before it.</summary>
/// <param name="vm">The VM.</param>
/// <param name="agent">Is asked when the guest does not heed the button.</param>
internal sealed class VmStops(VmSupervisor vm, VmStandardAgent agent)
{
    private static readonly TimeSpan s_end = TimeSpan.FromSeconds(30);

    /// <summary>
    /// Pulls the plug; with <paramref name="patience"/> the power button is pressed first, and the guest has so long to power off. Other
    /// commands are carried out while the guest takes its time, and nothing keeps the plug from being pulled: not a command that goes on,
    /// and not a start.
    /// </summary>
    /// <exception cref="ApiException">It does not run.</exception>
    internal async Task StopAsync(TimeSpan? patience, CancellationToken cancellation)
    {
        if (vm.RequestStop(out IWorker? worker) is not { } request)
        {
            return;
        }

        try
        {
            if (patience is { } wait && worker is not null && await PowerOffAsync(worker, wait, cancellation).ConfigureAwait(false))
            {
                return;
            }

            await PullPlugAsync(worker, cancellation).ConfigureAwait(false);
        }
        catch
        {
            vm.WithdrawStop(request);
            throw;
        }
    }

    /// <param name="only">Whose plug; null: whichever worker it has, or is about to have.</param>
    /// <param name="cancellation">Ends the waiting; the plug stays pulled.</param>
    private async Task PullPlugAsync(IWorker? only, CancellationToken cancellation)
    {
        while (vm.TryBeginStop(only, out IWorker? worker))
        {
            if (worker is not null)
            {
                await CallAsync(() => worker.StopAsync(cancellation)).ConfigureAwait(false);
                vm.Ends.End(worker, await worker.Ended.WaitAsync(s_end, cancellation).ConfigureAwait(false));
                return;
            }

            await vm.Operations.RunAsync(
                VmOperation.AwaitCancelledStart, vm.Name, () => Task.CompletedTask, cancellation).ConfigureAwait(false);
            if (!vm.IsAlive)
            {
                return;
            }
        }
    }

    /// <summary>Presses the power button and waits; true when the guest powered off.</summary>
    private async Task<bool> PowerOffAsync(IWorker worker, TimeSpan patience, CancellationToken cancellation)
    {
        if (vm.Snapshot.State == VmState.Crashed)
        {
            return false; // preserved: nobody heeds the button
        }

        await vm.Operations.RunAsync(VmOperation.PowerButton, vm.Name, async () =>
        {
            if (ReferenceEquals(vm.RequireWorkerFor(VmEvent.PowerButton), worker))
            {
                await CallAsync(() => worker.PressPowerButtonAsync(cancellation)).ConfigureAwait(false);
            }
        }, cancellation).ConfigureAwait(false);
        // Half of the time is for the button; a guest that has not heeded it by then is asked by its agent.
        TimeSpan half = agent.HasPort ? patience / 2 : patience;
        if (await EndsWithinAsync(worker, half, cancellation).ConfigureAwait(false))
        {
            return true;
        }

        if (half == patience)
        {
            return false;
        }

        _ = agent.ShutDownAsync(); // beside the waiting, and it logs what comes of it: the guest may be about to end by the button
        return await EndsWithinAsync(worker, patience - half, cancellation).ConfigureAwait(false);
    }

    private async Task<bool> EndsWithinAsync(IWorker worker, TimeSpan patience, CancellationToken cancellation)
    {
        long begin = Environment.TickCount64;
        try
        {
            for (IWorker? last = worker; last is not null; last = vm.Handover.After(last)) // it may go on in another one meanwhile
            {
                TimeSpan left = patience - TimeSpan.FromMilliseconds(Environment.TickCount64 - begin);
                vm.Ends.End(last, await last.Ended.WaitAsync(left > TimeSpan.Zero ? left : TimeSpan.Zero, cancellation)
                    .ConfigureAwait(false));
            }

            return true;
        }
        catch (TimeoutException)
        {
            return false;
        }
    }
}
