using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;

namespace Vmm.Daemon.Vms;

/// <content>What happens after an end: restarts by the policy of the spec, and the stop that asks the guest first.</content>
public sealed partial class ManagedVm
{
    private readonly RestartPlan _plan = new();
    private CancellationTokenSource? _restart;
    private DateTimeOffset? _nextStart;
    private long _startedAt;
    private readonly StopWishes _stops = new();

    /// <summary>Under the lock; true when there will be a restart.</summary>
    private bool PlanRestart(WorkerExit exit, TimeSpan ran)
    {
        if (_spec is null || _plan.After(_spec, exit, ran) is not { } delay)
        {
            return false;
        }

        CancelRestart();
        _restart = new CancellationTokenSource();
        _nextStart = DateTimeOffset.UtcNow + delay;
        DaemonLog.Restart(_log, _record.Name, delay.TotalSeconds);
        _events.Publish("restart", _record.Name, message: $"is started again in {delay.TotalSeconds} s");
        _ = RestartAsync(_restart, delay);
        return true;
    }

    /// <summary>Under the lock; true when there was one to cancel.</summary>
    private bool CancelRestart()
    {
        bool due = _restart is not null;
        _restart?.Cancel();
        (_restart, _nextStart) = (null, null);
        return due;
    }

    /// <summary>Plans the next start of a VM that should run, and writes whether there will be one: a daemon that comes in between goes on with it.</summary>
    private void PlanAgain(WorkerExit exit)
    {
        lock (_gate)
        {
            SaveEnd(PlanRestart(exit, TimeSpan.Zero), exit);
        }
    }

    /// <summary>The first start after the boot of the host. One that fails is planned anew by the policy of the spec.</summary>
    internal async Task AutostartAsync(CancellationToken cancellation)
    {
        try
        {
            await StartAsync(null, cancellation).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // The daemon ends; the next one begins anew.
        }
        catch (ApiException e) when (e.Problem.Code is "start-stopped" or "vmmd-ends" or "vm-not-found" or "wrong-state")
        {
            // Somebody else had another wish, or was first.
        }
#pragma warning disable CA1031 // Whatever it was, it is about this VM only: it is told, and the others are started.
        catch (Exception e)
#pragma warning restore CA1031
        {
            DaemonLog.StartFault(_log, e, _record.Name);
            PlanAgain(new WorkerExit(WorkerExitReason.Failed, 1, e.Message));
        }
    }

    private async Task RestartAsync(CancellationTokenSource mine, TimeSpan delay)
    {
        try
        {
            await Task.Delay(delay, mine.Token).ConfigureAwait(false);
            await InTurn(() => LaunchAsync(mine, null, CancellationToken.None), mine.Token).ConfigureAwait(false);
        }
        catch (Exception) when (mine.IsCancellationRequested)
        {
            // Somebody started, stopped, changed or deleted it meanwhile.
        }
        catch (ApiException e) when (e.Problem.Code is "start-stopped" or "vmmd-ends" or "vm-not-found")
        {
            // Not wanted any more either; or the next daemon goes on.
        }
#pragma warning disable CA1031 // Whatever it was, the VM should run: the next try is later, and this one is told.
        catch (Exception e)
#pragma warning restore CA1031
        {
            DaemonLog.RestartFailed(_log, _record.Name, e.Message);
            PlanAgain(new WorkerExit(WorkerExitReason.Failed, 1, e.Message));
        }
    }

    /// <summary>
    /// Pulls the plug; with <paramref name="patience"/> the power button is pressed first, and the guest has so long to power off. Other commands are
    /// carried out while the guest takes its time, and nothing keeps the plug from being pulled: not a command that goes on, and not a start.
    /// </summary>
    /// <exception cref="ApiException">It does not run.</exception>
    internal async Task<VmInfo> StopAsync(TimeSpan? patience, CancellationToken cancellation)
    {
        StopWish wish;
        IWorker? worker;
        lock (_gate)
        {
            _turns.ThrowIfClosed();
            if (CancelRestart() && _worker is null)
            {
                Save(_record with { WantedOn = false });
                return Info;
            }

            worker = _launch is null ? _worker : null;
            wish = _stops.Add();
        }

        try
        {
            if (patience is { } wait && worker is not null && await PoweredOffAsync(worker, wait, cancellation).ConfigureAwait(false))
            {
                return Info;
            }

            return await PullPlugAsync(worker, cancellation).ConfigureAwait(false);
        }
        catch
        {
            lock (_gate)
            {
                _stops.Remove(wish); // given up or refused: what the guest does from here on is its own wish again
            }

            throw;
        }
    }

    /// <param name="only">Whose plug; null: whichever worker it has, or is about to have.</param>
    /// <param name="cancellation">Ends the waiting; the plug stays pulled.</param>
    private async Task<VmInfo> PullPlugAsync(IWorker? only, CancellationToken cancellation)
    {
        while (true)
        {
            IWorker? worker = null;
            lock (_gate)
            {
                if (only is not null && !ReferenceEquals(_worker, only))
                {
                    return Info; // it ended by itself meanwhile
                }

                if (_launch is { } launch)
                {
                    launch.Stop();
                }
                else
                {
                    worker = Require(VmEvent.Stop);
                    Move(VmEvent.Stop);
                }
            }

            if (worker is not null)
            {
                await Call(() => worker.StopAsync(cancellation)).ConfigureAwait(false);
                Over(worker, await worker.Ended.WaitAsync(TimeSpan.FromSeconds(30), cancellation).ConfigureAwait(false));
                return Info;
            }

            await InTurn(() => Task.CompletedTask, cancellation).ConfigureAwait(false); // behind the start that is given up
            if (!IsAlive)
            {
                return Info;
            }
        }
    }

    /// <summary>Presses the power button and waits; true when the guest powered off.</summary>
    private async Task<bool> PoweredOffAsync(IWorker worker, TimeSpan patience, CancellationToken cancellation)
    {
        if (Info.State == VmState.Crashed)
        {
            return false; // preserved: nobody heeds the button
        }

        await InTurn(async () =>
        {
            if (ReferenceEquals(Require(VmEvent.PowerButton), worker))
            {
                await Call(() => worker.PressPowerButtonAsync(cancellation)).ConfigureAwait(false);
            }
        }, cancellation).ConfigureAwait(false);
        try
        {
            Over(worker, await worker.Ended.WaitAsync(patience, cancellation).ConfigureAwait(false));
            return true;
        }
        catch (TimeoutException)
        {
            return false;
        }
    }
}
