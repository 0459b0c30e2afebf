using Microsoft.Data.Sqlite;
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
    private bool _stopWanted;

    /// <summary>Under the lock; true when there will be a restart.</summary>
    private bool PlanRestart(WorkerExit exit, TimeSpan ran)
    {
        if (_stopWanted || _spec is null || _plan.After(_spec, exit, ran) is not { } delay)
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

    private async Task RestartAsync(CancellationTokenSource mine, TimeSpan delay)
    {
        try
        {
            await Task.Delay(delay, mine.Token).ConfigureAwait(false);
            await InTurn(async () =>
            {
                lock (_gate)
                {
                    if (!ReferenceEquals(_restart, mine))
                    {
                        return; // somebody started, stopped, changed or deleted it meanwhile
                    }

                    (_restart, _nextStart) = (null, null);
                }

                using CancellationTokenSource deadline = new(TimeSpan.FromMinutes(1));
                await LaunchAsync(deadline.Token).ConfigureAwait(false);
            }, mine.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (mine.IsCancellationRequested)
        {
            // Not wanted any more.
        }
        catch (Exception e) when (e is ApiException or OperationCanceledException or SqliteException)
        {
            DaemonLog.RestartFailed(_log, _record.Name, e.Message);
            lock (_gate)
            {
                PlanRestart(new WorkerExit(WorkerExitReason.Failed, 1, e.Message), TimeSpan.Zero);
            }
        }
        catch (ObjectDisposedException)
        {
            // The daemon ends; the next one goes on.
        }
    }

    /// <summary>Presses the power button and waits; true when the guest powered off.</summary>
    private async Task<bool> PoweredOffAsync(TimeSpan patience, CancellationToken cancellation)
    {
        if (Info.State == VmState.Crashed)
        {
            return false; // preserved: nobody heeds the button
        }

        IWorker worker = Require(VmEvent.PowerButton);
        await Call(() => worker.PressPowerButtonAsync(cancellation)).ConfigureAwait(false);
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
