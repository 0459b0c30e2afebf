using Microsoft.Extensions.Logging;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Vms;

/// <summary>
/// The life of one VM: its state, its worker while it has one, the start that goes on, the next one that is due. Everything here is memory
/// under one lock; what is written is committed behind it. Services of one topic each ask it for the worker.
/// </summary>
internal sealed class VmSupervisor : IDisposable
{
    private readonly VmRun _run;

    /// <param name="store">Its record.</param>
    /// <param name="events">Who listens hears of what happens.</param>
    /// <param name="log">The log.</param>
    internal VmSupervisor(VmRecordStore store, EventHub events, ILogger log)
    {
        (Store, Events, Log) = (store, events, log);
        VmState first = store.Record switch
        {
            { Move.Kind: MoveKind.Incoming } => VmState.Migrating,
            { Saved.IsWhole: true } => VmState.Saved,
            { LastExit: { } exit } => VmLifeCycle.After(exit.Reason),
            _ => VmState.Defined,
        };
        _run = new VmRun(store.Name, first, events);
        Ends = new RunEnds(_run, store, events, log);
        Handover = new RunHandover(_run, Ends);
    }

    internal VmRecordStore Store { get; }

    internal EventHub Events { get; }

    internal ILogger Log { get; }

    internal VmOperations Operations { get; } = new();

    /// <summary>How its runs end, and the starts that follow by themselves.</summary>
    internal RunEnds Ends { get; }

    /// <summary>How it comes to have another worker.</summary>
    internal RunHandover Handover { get; }

    internal string Name => Store.Name;

    /// <summary>State, worker, starts by the daemon since somebody's own, and when the next one is due.</summary>
    internal (VmState State, IWorker? Worker, int Restarts, DateTimeOffset? NextStart) Snapshot
    {
        get
        {
            lock (_run.Gate)
            {
                return (_run.State, _run.Worker, _run.Restarts.Count, _run.Restarts.Due?.At);
            }
        }
    }

    internal IWorker? Worker => Snapshot.Worker;

    /// <summary>Something runs or is about to.</summary>
    internal bool IsAlive
    {
        get
        {
            lock (_run.Gate)
            {
                return _run.IsAlive;
            }
        }
    }

    /// <summary>Nothing runs, is about to, or is due.</summary>
    internal bool IsIdle
    {
        get
        {
            lock (_run.Gate)
            {
                return !_run.IsAlive && _run.Restarts.Due is null;
            }
        }
    }

    internal void Observe(params IRunObserver[] observers) => _run.Observe(observers);

    /// <summary>Whether a worker is the one that has the VM now.</summary>
    internal bool IsCurrent(IWorker worker) => ReferenceEquals(Worker, worker);

    /// <exception cref="ApiException">It does not run.</exception>
    internal IWorker RequireWorker()
    {
        lock (_run.Gate)
        {
            return _run.Worker ?? throw WrongState("does not run");
        }
    }

    /// <summary>The worker, when the event is possible now.</summary>
    /// <exception cref="ApiException">It is not.</exception>
    internal IWorker RequireWorkerFor(VmEvent @event)
    {
        lock (_run.Gate)
        {
            return _run.Worker is not null && VmLifeCycle.TryNext(_run.State, @event, out _) ? _run.Worker : throw CannotBe(@event);
        }
    }

    /// <summary>The worker to plug a device into; null: the VM does not run, and only its spec changes.</summary>
    /// <exception cref="ApiException">It starts or stops.</exception>
    internal IWorker? RequireWorkerForDevices()
    {
        lock (_run.Gate)
        {
            bool possible = _run.Worker is null
                ? !_run.IsAlive && _run.State != VmState.Saved
                : _run.State.IsUp();
            return possible
                ? _run.Worker
                : throw WrongState("gets no device now: wait until it runs or is stopped, and restore one that is saved");
        }
    }

    /// <summary>Takes the VM for a change of what is stored: nothing runs, and nothing will start by itself.</summary>
    /// <exception cref="ApiException">It is alive, or the record is at another revision.</exception>
    internal void RequireIdle(string change, long? revision)
    {
        lock (_run.Gate)
        {
            Store.RequireRevision(revision);
            if (_run.IsAlive)
            {
                throw new ApiException(
                    409, ControlCodes.WrongState, "the VM is in another state",
                    $"{Name} is {_run.State} and cannot be {change}: stop it first");
            }

            if (_run.State == VmState.Saved)
            {
                throw new ApiException(409, "vm-saved", "the VM is saved", $"{Name} is saved in {Store.Record.Saved?.Folder} and cannot be "
                    + $"{change}: restore it, or forget that with 'vmmctl vm discard-saved {Name}'");
            }

            _run.Restarts.Cancel();
        }
    }

    internal ApiException WrongState(string why)
    {
        lock (_run.Gate)
        {
            return new ApiException(409, ControlCodes.WrongState, "the VM is in another state", $"{Name} is {_run.State}: it {why}");
        }
    }

    /// <summary>
    /// After the worker obeyed. A guest may have ended meanwhile (a short one within its start); then that is what stands.
    /// </summary>
    /// <param name="event">What happened.</param>
    /// <param name="holds">Looks whether it still is so; called under the lock. Null: it is.</param>
    internal void MoveIfPossible(VmEvent @event, Func<bool>? holds = null)
    {
        lock (_run.Gate)
        {
            if (holds?.Invoke() == false)
            {
                return;
            }

            _run.Become(VmLifeCycle.TryNext(_run.State, @event, out VmState next) ? next : _run.State);
        }
    }

    /// <summary>Begins something that only some states allow; what it does to the state is in the table.</summary>
    /// <returns>The worker.</returns>
    /// <exception cref="ApiException">It is not possible now.</exception>
    internal IWorker BeginFor(VmEvent @event)
    {
        lock (_run.Gate)
        {
            IWorker worker = RequireWorkerFor(@event);
            MoveIfPossible(@event);
            return worker;
        }
    }

    /// <summary>The guest crashed and is preserved; a stop that goes on stays one.</summary>
    internal void MarkCrashed(IWorker worker)
    {
        lock (_run.Gate)
        {
            if (ReferenceEquals(_run.Worker, worker) && _run.State is not VmState.Stopping)
            {
                MoveIfPossible(VmEvent.Crashed);
            }
        }
    }

    /// <summary>Somebody starts the VM: restarts that were due or counted are of the past.</summary>
    internal void ForgetRestarts()
    {
        lock (_run.Gate)
        {
            _run.Restarts.Cancel();
            _run.Restarts.Reset();
        }
    }

    /// <summary>Begins a start.</summary>
    /// <param name="planned">The plan that it is due by; null: somebody asked for it.</param>
    /// <param name="cancel">Cancels it.</param>
    /// <returns>False: the planned start is not due any more.</returns>
    /// <exception cref="ApiException">It cannot be started.</exception>
    internal bool TryBeginLaunch(PlannedStart? planned, CancellationTokenSource cancel)
    {
        lock (_run.Gate)
        {
            if (planned is not null && !ReferenceEquals(_run.Restarts.Due, planned))
            {
                return false; // somebody started, stopped, changed or deleted it meanwhile
            }

            if (_run.Worker is not null)
            {
                throw WrongState("cannot be started: stop it first"); // crashed, and preserved
            }

            _run.Become(VmLifeCycle.TryNext(_run.State, VmEvent.Start, out VmState next) ? next : throw CannotBe(VmEvent.Start));
            _run.Restarts.Clear();
            _run.Launch = new Launch(cancel);
            return true;
        }
    }

    /// <summary>The launch is over; true when a stop ended it.</summary>
    internal bool EndLaunch()
    {
        lock (_run.Gate)
        {
            bool stopped = _run.Launch?.Stopped == true;
            _run.Launch = null;
            return stopped;
        }
    }

    /// <summary>A worker was started for it.</summary>
    internal void AttachWorker(IWorker worker)
    {
        lock (_run.Gate)
        {
            _run.Stops.Clear();
            _run.Attach(worker);
        }

        Ends.Watch(worker);
    }

    /// <summary>A worker of an earlier daemon has it.</summary>
    /// <param name="worker">The worker.</param>
    /// <param name="answers">False: it has not said yet where it stands.</param>
    internal void AdoptWorker(IWorker worker, bool answers)
    {
        lock (_run.Gate)
        {
            _run.Attach(worker);
            _run.Become(answers ? StateWith(worker) : VmState.Running); // most probably: a hung worker's vCPUs may well run
        }

        Ends.Watch(worker);
    }

    /// <summary>An adopted worker answers. One whose VM was built but not started was cut off in a start, which goes on.</summary>
    /// <returns>False: somebody pulled its plug meanwhile.</returns>
    internal bool TryLearnState(IWorker worker, CancellationTokenSource cancel, out bool isLaunch)
    {
        lock (_run.Gate)
        {
            isLaunch = false;
            if (!ReferenceEquals(_run.Worker, worker) || _run.State == VmState.Stopping)
            {
                return false;
            }

            _run.Become(StateWith(worker));
            isLaunch = _run.State == VmState.Starting;
            _run.Launch = isLaunch ? new Launch(cancel) : null;
            return true;
        }
    }

    /// <summary>Somebody asks for a stop.</summary>
    /// <param name="worker">Whose power button can be pressed; null: a start goes on.</param>
    /// <returns>The request, which counts until the run is over or it is withdrawn; null: only a restart was due, which is cancelled
    /// now.</returns>
    internal StopRequest? RequestStop(out IWorker? worker)
    {
        StopRequest? request = null;
        lock (_run.Gate)
        {
            Operations.ThrowIfClosed();
            worker = _run.Launch is null ? _run.Worker : null;
            if (_run.Restarts.Cancel() && _run.Worker is null)
            {
                Store.Change(record => record with { WantedOn = false });
            }
            else
            {
                request = _run.Stops.Add();
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
        lock (_run.Gate)
        {
            _run.Stops.Remove(request);
        }
    }

    /// <summary>Begins to pull the plug: of the worker, or of the start that goes on, which is cancelled then.</summary>
    /// <param name="only">Whose plug; null: whichever worker it has, or is about to have.</param>
    /// <param name="worker">The worker to stop; null: a start was cancelled.</param>
    /// <returns>False: <paramref name="only"/> ended by itself meanwhile.</returns>
    /// <exception cref="ApiException">It does not run.</exception>
    internal bool TryBeginStop(IWorker? only, out IWorker? worker)
    {
        lock (_run.Gate)
        {
            worker = null;
            if (only is not null && !ReferenceEquals(_run.Worker, only) && !ReferenceEquals(_run.Before, only))
            {
                return false;
            }

            if (_run.Launch is { } launch)
            {
                launch.Stop();
                return true;
            }

            worker = RequireWorkerFor(VmEvent.Stop);
            Store.RequireSettled(); // under the lock: see VmMigrations, which looks for a stop when this record is there
            MoveIfPossible(VmEvent.Stop);
            return true;
        }
    }

    /// <summary>No command begins any more; a restart that is due is none.</summary>
    internal void Close(ApiException why)
    {
        lock (_run.Gate)
        {
            _run.Restarts.Cancel();
        }

        Operations.Close(why);
    }

    /// <summary>Lets go of the worker without ending it.</summary>
    public void Dispose()
    {
        IWorker? worker;
        lock (_run.Gate)
        {
            worker = _run.Detach();
        }

        Close(new ApiException(503, "vmmd-ends", "vmmd ends", $"{Name}: vmmd ends; the VM goes on, ask the next vmmd"));
        _ = worker?.DisposeAsync().AsTask();
    }

    /// <summary>
    /// Where a VM stands that has a worker. A start goes on until its worker has built it; one that is over has run until its end was taken
    /// note of, which <see cref="RunEnds.Watch"/> does.
    /// </summary>
    private static VmState StateWith(IWorker worker) => worker.State switch
    {
        VmState.Defined => VmState.Starting,
        VmState.Stopped => VmState.Running,
        VmState state => state,
    };

    private ApiException CannotBe(VmEvent @event) => WrongState($"cannot be {VmLifeCycle.Participle(@event)}");
}
