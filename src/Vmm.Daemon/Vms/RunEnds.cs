using Microsoft.Extensions.Logging;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Vms;

/// <summary>
/// How runs of a VM end, and the starts that vmmd makes by itself after them: what becomes of the state is decided under the lock of the
/// run, what is written is committed behind it.
/// </summary>
/// <param name="run">The run.</param>
/// <param name="store">Its record.</param>
/// <param name="events">Who listens hears of what happens.</param>
/// <param name="log">The log.</param>
internal sealed class RunEnds(VmRun run, VmRecordStore store, EventHub events, ILogger log)
{
    /// <summary>Carries out a start that became due.</summary>
    internal Func<PlannedStart, Task> StartDue { get; set; } = _ => Task.CompletedTask;

    /// <summary>A run is over, and its end is written.</summary>
    internal Action Over { get; set; } = () => { };

    /// <summary>A start that did not succeed: the record says why.</summary>
    /// <param name="exit">Why.</param>
    /// <param name="wanted">It is to run all the same: who calls plans the next start, and a daemon that comes in between does.</param>
    /// <returns>The worker, which is to be ended; null when it had none.</returns>
    internal IWorker? Abandon(WorkerExit exit, bool wanted)
    {
        IWorker? worker;
        lock (run.Gate)
        {
            worker = run.Detach();
            VmEvent how = store.Record.Saved is { IsWhole: true } ? VmEvent.Saved : VmLifeCycle.EventOf(exit.Reason);
            if (VmLifeCycle.TryNext(run.State, how, out VmState over))
            {
                run.Become(over);
                store.Change(record => record with { WantedOn = wanted, LastExit = exit });
            }
        }

        store.CommitOrLog();
        return worker;
    }

    /// <summary>The end of the worker, whenever that is, is the end of the run, unless the run is in another worker by then.</summary>
    internal void Watch(IWorker worker) => _ = worker.Ended.ContinueWith(
        ended => End(worker, ended.Result), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);

    /// <summary>
    /// The worker is gone. Called once or more; only the first call for the present worker counts. When this returns, the end is written.
    /// </summary>
    internal void End(IWorker worker, WorkerExit exit)
    {
        bool first;
        lock (run.Gate)
        {
            first = ReferenceEquals(run.Worker, worker);
            if (first)
            {
                bool stopped = run.Stops.Any || run.State == VmState.Stopping;
                run.Detach();
                bool saved = store.Record.Saved is { IsWhole: true };
                VmEvent how = saved ? VmEvent.Saved : VmLifeCycle.EventOf(exit.Reason);
                run.Become(VmLifeCycle.TryNext(run.State, how, out VmState next) ? next : VmState.Failed);
                events.Publish("ended", store.Name, exit: exit);
                bool again = !stopped && !saved && PlanRestart(exit, run.Lasted);
                // Wanted on while its restart is due: a daemon that comes in between goes on with it. The report is in the event and in the
                // log.
                store.Change(record => record with { WantedOn = again, LastExit = exit with { Report = null } });
            }
        }

        store.CommitOrLog();
        if (first)
        {
            Over();
            DaemonLog.VmEnded(log, store.Name, exit.Reason, exit.Message ?? "");
            foreach (string line in exit.Report ?? [])
            {
                DaemonLog.CrashReport(log, store.Name, line);
            }

            _ = worker.DisposeAsync().AsTask();
        }
    }

    /// <summary>At the daemon's start: the VM should run, but no worker was found. It died with nobody watching.</summary>
    internal void Lost()
    {
        lock (run.Gate)
        {
            run.Become(VmState.Failed);
        }

        PlanAnotherStart(new WorkerExit(ExitReason.WorkerDied, 1, "its worker was gone when vmmd started"));
    }

    /// <summary>
    /// Plans the next start of a VM that should run, and writes whether there will be one: a daemon that comes in between goes on with it.
    /// </summary>
    internal void PlanAnotherStart(WorkerExit exit)
    {
        lock (run.Gate)
        {
            bool again = PlanRestart(exit, TimeSpan.Zero);
            store.Change(record => record with { WantedOn = again, LastExit = exit });
        }

        store.CommitOrLog();
    }

    // Under the lock.
    private bool PlanRestart(WorkerExit exit, TimeSpan ran)
    {
        if (run.Restarts.TryPlan(store.Spec, exit, ran) is not { } planned)
        {
            return false;
        }

        DaemonLog.Restart(log, store.Name, planned.Delay.TotalSeconds);
        events.Publish("restart", store.Name, message: $"is started again in {planned.Delay.TotalSeconds} s");
        _ = Task.Run(() => StartDue(planned));
        return true;
    }
}
