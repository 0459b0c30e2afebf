using Microsoft.Extensions.Logging;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;

namespace Vmm.Daemon.Vms;

/// <summary>Hears of the runs of a VM. Called under the supervisor's lock: quick, and without calling it back.</summary>
internal interface IRunObserver
{
    /// <summary>A worker has the VM from now on.</summary>
    void RunBegan(IWorker worker);

    /// <summary>No worker has it any more.</summary>
    void RunEnded();
}

/// <summary>
/// The life of one VM: its state, its worker while it has one, the start that goes on, the next one that is due. Everything here is memory
/// under one lock; what is written is committed behind it. Services of one topic each ask it for the worker.
/// </summary>
internal sealed class VmSupervisor : IDisposable
{
    private readonly Lock _lock = new();
    private readonly RestartSchedule _restarts = new();
    private readonly StopRequests _stops = new();
    private IRunObserver[] _observers = [];
    private VmState _state;
    private IWorker? _worker;
    private Launch? _launch;
    private long _startedAt;

    /// <param name="store">Its record.</param>
    /// <param name="events">Who listens hears of what happens.</param>
    /// <param name="log">The log.</param>
    internal VmSupervisor(VmRecordStore store, EventHub events, ILogger log)
    {
        (Store, Events, Log) = (store, events, log);
        _state = store.Record switch
        {
            { Saved.IsWhole: true } => VmState.Saved,
            { LastExit: { } exit } => VmLifeCycle.After(exit.Reason),
            _ => VmState.Defined,
        };
    }

    internal VmRecordStore Store { get; }

    internal EventHub Events { get; }

    internal ILogger Log { get; }

    internal VmOperations Operations { get; } = new();

    internal string Name => Store.Name;

    /// <summary>Carries out a start that became due.</summary>
    internal Func<PlannedStart, Task> StartDue { get; set; } = _ => Task.CompletedTask;

    /// <summary>State, worker, starts by the daemon since somebody's own, and when the next one is due.</summary>
    internal (VmState State, IWorker? Worker, int Restarts, DateTimeOffset? NextStart) Snapshot
    {
        get
        {
            lock (_lock)
            {
                return (_state, _worker, _restarts.Count, _restarts.Due?.At);
            }
        }
    }

    internal IWorker? Worker => Snapshot.Worker;

    /// <summary>Something runs or is about to.</summary>
    internal bool IsAlive
    {
        get
        {
            lock (_lock)
            {
                return HasOrGetsWorker;
            }
        }
    }

    /// <summary>Nothing runs, is about to, or is due.</summary>
    internal bool IsIdle
    {
        get
        {
            lock (_lock)
            {
                return !HasOrGetsWorker && _restarts.Due is null;
            }
        }
    }

    private bool HasOrGetsWorker => VmLifeCycle.IsAlive(_state, _worker is not null);

    internal void Observe(params IRunObserver[] observers) => _observers = observers;

    /// <summary>Whether a worker is the one that has the VM now.</summary>
    internal bool IsCurrent(IWorker worker) => ReferenceEquals(Worker, worker);

    /// <exception cref="ApiException">It does not run.</exception>
    internal IWorker RequireWorker()
    {
        lock (_lock)
        {
            return _worker ?? throw WrongState("does not run");
        }
    }

    /// <summary>The worker, when the event is possible now.</summary>
    /// <exception cref="ApiException">It is not.</exception>
    internal IWorker RequireWorkerFor(VmEvent @event)
    {
        lock (_lock)
        {
            return _worker is not null && VmLifeCycle.TryNext(_state, @event, out _) ? _worker : throw CannotBe(@event);
        }
    }

    /// <summary>The worker to plug a device into; null: the VM does not run, and only its spec changes.</summary>
    /// <exception cref="ApiException">It starts or stops.</exception>
    internal IWorker? RequireWorkerForDevices()
    {
        lock (_lock)
        {
            bool possible = _worker is null ? !HasOrGetsWorker && _state != VmState.Saved : _state is VmState.Running or VmState.Paused;
            return possible ? _worker : throw WrongState("gets no device now: wait until it runs or is stopped, and restore one that is saved");
        }
    }

    /// <summary>Takes the VM for a change of what is stored: nothing runs, and nothing will start by itself.</summary>
    /// <exception cref="ApiException">It is alive, or the record is at another revision.</exception>
    internal void RequireIdle(string change, long? revision)
    {
        lock (_lock)
        {
            Store.RequireRevision(revision);
            if (HasOrGetsWorker)
            {
                throw new ApiException(409, ControlCodes.WrongState, "the VM is in another state", $"{Name} is {_state} and cannot be {change}: stop it first");
            }

            if (_state == VmState.Saved)
            {
                throw new ApiException(409, "vm-saved", "the VM is saved", $"{Name} is saved in {Store.Record.Saved?.Folder} and cannot be {change}: restore it, or forget that with 'vmmctl vm discard-saved {Name}'");
            }

            _restarts.Cancel();
        }
    }

    internal ApiException WrongState(string why)
    {
        lock (_lock)
        {
            return new ApiException(409, ControlCodes.WrongState, "the VM is in another state", $"{Name} is {_state}: it {why}");
        }
    }

    /// <summary>
    /// After the worker obeyed. A guest may have ended meanwhile (a short one within its start); then that is what stands.
    /// </summary>
    internal void MoveIfPossible(VmEvent @event)
    {
        lock (_lock)
        {
            Become(VmLifeCycle.TryNext(_state, @event, out VmState next) ? next : _state);
        }
    }

    /// <summary>Begins something that only some states allow; what it does to the state is in the table.</summary>
    /// <returns>The worker, and the state before.</returns>
    /// <exception cref="ApiException">It is not possible now.</exception>
    internal (IWorker Worker, VmState Before) BeginFor(VmEvent @event)
    {
        lock (_lock)
        {
            IWorker worker = RequireWorkerFor(@event);
            VmState before = _state;
            MoveIfPossible(@event);
            return (worker, before);
        }
    }

    /// <summary>The guest crashed and is preserved; a stop that goes on stays one.</summary>
    internal void MarkCrashed(IWorker worker)
    {
        lock (_lock)
        {
            if (ReferenceEquals(_worker, worker) && _state is not VmState.Stopping)
            {
                MoveIfPossible(VmEvent.Crashed);
            }
        }
    }

    /// <summary>Somebody starts the VM: restarts that were due or counted are of the past.</summary>
    internal void ForgetRestarts()
    {
        lock (_lock)
        {
            _restarts.Cancel();
            _restarts.Reset();
        }
    }

    /// <summary>Begins a start.</summary>
    /// <param name="planned">The plan that it is due by; null: somebody asked for it.</param>
    /// <param name="cancel">Cancels it.</param>
    /// <returns>False: the planned start is not due any more.</returns>
    /// <exception cref="ApiException">It cannot be started.</exception>
    internal bool TryBeginLaunch(PlannedStart? planned, CancellationTokenSource cancel)
    {
        lock (_lock)
        {
            if (planned is not null && !ReferenceEquals(_restarts.Due, planned))
            {
                return false; // somebody started, stopped, changed or deleted it meanwhile
            }

            if (_worker is not null)
            {
                throw WrongState("cannot be started: stop it first"); // crashed, and preserved
            }

            Become(VmLifeCycle.TryNext(_state, VmEvent.Start, out VmState next) ? next : throw CannotBe(VmEvent.Start));
            _restarts.Clear();
            _launch = new Launch(cancel);
            return true;
        }
    }

    /// <summary>The launch is over; true when a stop ended it.</summary>
    internal bool EndLaunch()
    {
        lock (_lock)
        {
            bool stopped = _launch?.Stopped == true;
            _launch = null;
            return stopped;
        }
    }

    /// <summary>A worker was started for it.</summary>
    internal void AttachWorker(IWorker worker)
    {
        lock (_lock)
        {
            _stops.Clear();
            Attach(worker);
        }

        _ = worker.Ended.ContinueWith(ended => EndRun(worker, ended.Result), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
    }

    /// <summary>A worker of an earlier daemon has it.</summary>
    /// <param name="worker">The worker.</param>
    /// <param name="answers">False: it has not said yet where it stands.</param>
    internal void AdoptWorker(IWorker worker, bool answers)
    {
        lock (_lock)
        {
            Attach(worker);
            Become(answers ? VmLifeCycle.Of(worker.State) : VmState.Running); // most probably: a hung worker's vCPUs may well run
        }

        _ = worker.Ended.ContinueWith(ended => EndRun(worker, ended.Result), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
    }

    /// <summary>An adopted worker answers. One whose VM was built but not started was cut off in a start, which goes on.</summary>
    /// <returns>False: somebody pulled its plug meanwhile.</returns>
    internal bool TryLearnState(IWorker worker, CancellationTokenSource cancel, out bool isLaunch)
    {
        lock (_lock)
        {
            isLaunch = false;
            if (!ReferenceEquals(_worker, worker) || _state == VmState.Stopping)
            {
                return false;
            }

            Become(VmLifeCycle.Of(worker.State));
            isLaunch = _state == VmState.Starting;
            _launch = isLaunch ? new Launch(cancel) : null;
            return true;
        }
    }

    /// <summary>A start that did not succeed: the record says why.</summary>
    /// <param name="exit">Why.</param>
    /// <param name="wanted">It is to run all the same: who calls plans the next start, and a daemon that comes in between does.</param>
    /// <returns>The worker, which is to be ended; null when it had none.</returns>
    internal IWorker? AbandonRun(WorkerExit exit, bool wanted)
    {
        IWorker? worker;
        lock (_lock)
        {
            worker = Detach();
            VmEvent how = Store.Record.Saved is { IsWhole: true } ? VmEvent.Saved : VmLifeCycle.EventOf(exit.Reason);
            if (VmLifeCycle.TryNext(_state, how, out VmState over))
            {
                Become(over);
                Store.Change(record => record with { WantedOn = wanted, LastExit = exit });
            }
        }

        Store.CommitOrLog();
        return worker;
    }

    /// <summary>
    /// The worker is gone. Called once or more; only the first call for the present worker counts. When this returns, the end is written.
    /// </summary>
    internal void EndRun(IWorker worker, WorkerExit exit)
    {
        bool first;
        lock (_lock)
        {
            first = ReferenceEquals(_worker, worker);
            if (first)
            {
                bool stopped = _stops.Any || _state == VmState.Stopping;
                Detach();
                bool saved = Store.Record.Saved is { IsWhole: true };
                VmEvent how = saved ? VmEvent.Saved : VmLifeCycle.EventOf(exit.Reason);
                Become(VmLifeCycle.TryNext(_state, how, out VmState next) ? next : VmState.Failed);
                Events.Publish("ended", Name, exit: exit);
                bool again = !stopped && !saved && PlanRestart(exit, TimeSpan.FromMilliseconds(Environment.TickCount64 - _startedAt));
                // Wanted on while its restart is due: a daemon that comes in between goes on with it. The report is in the event and in the
                // log.
                Store.Change(record => record with { WantedOn = again, LastExit = exit with { Report = null } });
            }
        }

        Store.CommitOrLog();
        if (first)
        {
            DaemonLog.VmEnded(Log, Name, exit.Reason, exit.Message ?? "");
            foreach (string line in exit.Report ?? [])
            {
                DaemonLog.CrashReport(Log, Name, line);
            }

            _ = worker.DisposeAsync().AsTask();
        }
    }

    /// <summary>At the daemon's start: the VM should run, but no worker was found. It died with nobody watching.</summary>
    internal void Lost()
    {
        lock (_lock)
        {
            Become(VmState.Failed);
        }

        PlanAnotherStart(new WorkerExit(WorkerExitReason.WorkerDied, 1, "its worker was gone when vmmd started"));
    }

    /// <summary>
    /// Plans the next start of a VM that should run, and writes whether there will be one: a daemon that comes in between goes on with it.
    /// </summary>
    internal void PlanAnotherStart(WorkerExit exit)
    {
        lock (_lock)
        {
            bool again = PlanRestart(exit, TimeSpan.Zero);
            Store.Change(record => record with { WantedOn = again, LastExit = exit });
        }

        Store.CommitOrLog();
    }

    /// <summary>Somebody asks for a stop.</summary>
    /// <param name="worker">Whose power button can be pressed; null: a start goes on.</param>
    /// <returns>The request, which counts until the run is over or it is withdrawn; null: only a restart was due, which is cancelled
    /// now.</returns>
    internal StopRequest? RequestStop(out IWorker? worker)
    {
        StopRequest? request = null;
        lock (_lock)
        {
            Operations.ThrowIfClosed();
            worker = _launch is null ? _worker : null;
            if (_restarts.Cancel() && _worker is null)
            {
                Store.Change(record => record with { WantedOn = false });
            }
            else
            {
                request = _stops.Add();
            }
        }

        if (request is null)
        {
            Store.Commit();
        }

        return request;
    }

    /// <summary>The request was given up or refused: what the guest does from here on is its own again.</summary>
    internal void WithdrawStop(StopRequest request)
    {
        lock (_lock)
        {
            _stops.Remove(request);
        }
    }

    /// <summary>Begins to pull the plug: of the worker, or of the start that goes on, which is cancelled then.</summary>
    /// <param name="only">Whose plug; null: whichever worker it has, or is about to have.</param>
    /// <param name="worker">The worker to stop; null: a start was cancelled.</param>
    /// <returns>False: <paramref name="only"/> ended by itself meanwhile.</returns>
    /// <exception cref="ApiException">It does not run.</exception>
    internal bool TryBeginStop(IWorker? only, out IWorker? worker)
    {
        lock (_lock)
        {
            worker = null;
            if (only is not null && !ReferenceEquals(_worker, only))
            {
                return false;
            }

            if (_launch is { } launch)
            {
                launch.Stop();
                return true;
            }

            worker = RequireWorkerFor(VmEvent.Stop);
            MoveIfPossible(VmEvent.Stop);
            return true;
        }
    }

    /// <summary>No command begins any more; a restart that is due is none.</summary>
    internal void Close(ApiException why)
    {
        lock (_lock)
        {
            _restarts.Cancel();
        }

        Operations.Close(why);
    }

    /// <summary>Lets go of the worker without ending it.</summary>
    public void Dispose()
    {
        IWorker? worker;
        lock (_lock)
        {
            worker = Detach();
        }

        Close(new ApiException(503, "vmmd-ends", "vmmd ends", $"{Name}: vmmd ends; the VM goes on, ask the next vmmd"));
        _ = worker?.DisposeAsync().AsTask();
    }

    // The following are called under the lock.

    private void Attach(IWorker worker)
    {
        _worker = worker;
        _startedAt = Environment.TickCount64;
        foreach (IRunObserver observer in _observers)
        {
            observer.RunBegan(worker);
        }
    }

    private IWorker? Detach()
    {
        IWorker? worker = _worker;
        _worker = null;
        foreach (IRunObserver observer in _observers)
        {
            observer.RunEnded();
        }

        return worker;
    }

    private bool PlanRestart(WorkerExit exit, TimeSpan ran)
    {
        if (_restarts.TryPlan(Store.Spec, exit, ran) is not { } planned)
        {
            return false;
        }

        DaemonLog.Restart(Log, Name, planned.Delay.TotalSeconds);
        Events.Publish("restart", Name, message: $"is started again in {planned.Delay.TotalSeconds} s");
        _ = Task.Run(() => StartDue(planned));
        return true;
    }

    private void Become(VmState state)
    {
        if (_state != state)
        {
            _state = state;
            Events.Publish("state", Name, state);
        }
    }

    private ApiException CannotBe(VmEvent @event) => WrongState($"cannot be {VmLifeCycle.Participle(@event)}");
}
