using Microsoft.Extensions.Logging;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Workers;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>One VM: its record, its state, and its worker while it has one. Commands take turns; the end of a worker may come at any time.</summary>
public sealed partial class ManagedVm : IDisposable
{
    private static readonly TimeSpan s_launch = TimeSpan.FromMinutes(1);

    private readonly CommandTurns _turns = new();
    private readonly Lock _gate = new();
    private readonly VmInventory _inventory;
    private readonly IWorkerLauncher _launcher;
    private readonly ILogger _log;
    private VmRecord _record;
    private VmState _state;
    private IWorker? _worker;
    private Launch? _launch;
    private VmSpec? _spec;
    private SpecException? _specProblem;
    private readonly EventHub _events;
    private readonly Action<VmSpec> _fits;

    /// <param name="record">What is stored.</param>
    /// <param name="inventory">Where it is stored.</param>
    /// <param name="launcher">Gives it workers.</param>
    /// <param name="events">Who listens hears of what happens.</param>
    /// <param name="log">The log.</param>
    /// <param name="fits">Throws when the VM cannot run beside the others.</param>
    internal ManagedVm(VmRecord record, VmInventory inventory, IWorkerLauncher launcher, EventHub events, ILogger log, Action<VmSpec> fits)
    {
        _fits = fits;
        _events = events;
        _record = record;
        _inventory = inventory;
        _launcher = launcher;
        _log = log;
        _state = record.LastExit is { } exit ? VmLifeCycle.After(exit.Reason) : VmState.Defined;
        try
        {
            _spec = SpecReader.Read(record.Spec, record.Name, record.Folder.Length > 0 ? record.Folder : null);
        }
        catch (SpecException e)
        {
            // Of another version, say. The VM can be shown, changed and deleted; only a start needs a sound spec.
            _specProblem = e;
            DaemonLog.SpecUnread(log, record.Name, e.Message);
        }
    }

    internal VmRecord Record
    {
        get
        {
            lock (_gate)
            {
                return _record;
            }
        }
    }

    /// <summary>Something runs or is about to.</summary>
    internal bool IsAlive
    {
        get
        {
            lock (_gate)
            {
                return HasOrGetsWorker;
            }
        }
    }

    /// <summary>The host's socket of its vsock; null when it has none.</summary>
    internal string? VsockPath => Now().Spec?.Vsock?.Path;

    /// <summary>It is to run from the boot of the host on, and does not yet.</summary>
    internal bool StartsByItself
    {
        get
        {
            lock (_gate)
            {
                return _spec is { Autostart: true } && !HasOrGetsWorker && _restart is null;
            }
        }
    }

    internal VmInfo Info
    {
        get
        {
            lock (_gate)
            {
                return new VmInfo(_record.Id, _record.Name, _state, _record.Revision, _spec?.Cpus ?? 0, _spec?.Memory ?? ByteSize.Zero, _worker?.ProcessId, _record.LastExit, _plan.Restarts, _nextStart, _worker?.Confinement, CpuLimits);
            }
        }
    }

    /// <summary>
    /// Takes over a worker of an earlier daemon; returns when all is known of it, which a worker that hangs delays. One whose VM was built but not started
    /// was cut off in a start: the start is finished.
    /// </summary>
    internal async Task AdoptAsync(IWorker worker, CancellationToken cancellation)
    {
        if (Now().Spec?.Vsock is { } vsock)
        {
            worker.ServeVsock(vsock.Path);
        }

        bool silent = !worker.Greeted.IsCompleted;
        lock (_gate)
        {
            _worker = worker;
            _startedAt = Environment.TickCount64;
            Become(silent ? VmState.Running : StateOf(worker)); // most probably: a hung worker's vCPUs may well run
        }

        Watch(worker);
        if (silent)
        {
            DaemonLog.Unanswering(_log, _record.Name, worker.ProcessId);
        }

        if (!await worker.Greeted.ConfigureAwait(false))
        {
            return; // it is being ended, and its end tells why
        }

        await InTurn(() => FinishAdoptionAsync(worker, cancellation), cancellation).ConfigureAwait(false);
    }

    private static VmState StateOf(IWorker worker) => worker.State switch
    {
        WorkerState.Idle or WorkerState.Ready => VmState.Starting,
        WorkerState.Paused => VmState.Paused,
        WorkerState.Crashed => VmState.Crashed,
        _ => VmState.Running,
    };

    private async Task FinishAdoptionAsync(IWorker worker, CancellationToken cancellation)
    {
        using CancellationTokenSource launch = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        lock (_gate)
        {
            if (!ReferenceEquals(_worker, worker) || _state == VmState.Stopping)
            {
                return; // somebody pulled its plug meanwhile
            }

            Become(StateOf(worker));
            _launch = _state == VmState.Starting ? new Launch(launch) : null;
        }

        LearnCpu(worker);
        if (_launch is null)
        {
            await LearnDevicesAsync(worker, cancellation).ConfigureAwait(false);
            return;
        }

        try
        {
            await worker.StartAsync(launch.Token).ConfigureAwait(false);
            MoveIfPossible(VmEvent.Started);
        }
        catch (Exception e) when (e is WorkerException or OperationCanceledException)
        {
            WorkerExit exit = new(WorkerExitReason.Failed, 1, $"its start was cut off by the end of the earlier vmmd and could not be finished: {e.Message}");
            bool stopped = EndLaunch();
            await AbandonAsync(stopped ? StartStopped : exit, wanted: !stopped).ConfigureAwait(false);
            if (!stopped)
            {
                PlanAgain(exit);
            }
        }
        finally
        {
            EndLaunch();
        }
    }

    /// <summary>At the daemon's start: the VM should run, but no worker was found. It died with nobody watching.</summary>
    internal void Lost()
    {
        lock (_gate)
        {
            Become(VmState.Failed);
            PlanAgain(new WorkerExit(WorkerExitReason.WorkerDied, 1, "its worker was gone when vmmd started"));
        }
    }

    /// <summary>Starts it.</summary>
    /// <param name="progress">Hears from 0 to 1 how far the building of the VM is; null: nobody listens.</param>
    /// <param name="cancellation">Gives the start up; so does a stop.</param>
    /// <exception cref="ApiException">It cannot be started.</exception>
    internal Task<VmInfo> StartAsync(Action<double>? progress, CancellationToken cancellation) => InTurn(() =>
    {
        lock (_gate)
        {
            CancelRestart();
            _plan.Reset();
        }

        return LaunchAsync(null, progress, cancellation);
    }, cancellation);

    /// <param name="planned">The plan that this start is due by, which is over by it; null: somebody asked for it.</param>
    /// <param name="progress">Hears how far it is.</param>
    /// <param name="cancellation">Gives up.</param>
    private async Task LaunchAsync(CancellationTokenSource? planned, Action<double>? progress, CancellationToken cancellation)
    {
        VmSpec spec = _spec ?? throw ApiException.OfSpec(_specProblem!);
        _fits(spec);
        using CancellationTokenSource launch = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        TimeSpan longest = s_launch + BuildProgress.Longest(spec);
        launch.CancelAfter(longest);
        lock (_gate)
        {
            if (planned is not null && !ReferenceEquals(_restart, planned))
            {
                return; // somebody started, stopped, changed or deleted it meanwhile
            }

            if (_worker is not null)
            {
                throw WrongState("cannot be started: stop it first"); // crashed, and preserved
            }

            Move(VmEvent.Start);
            (_restart, _nextStart) = (null, null);
            _launch = new Launch(launch);
        }

        try
        {
            await RunWorkerAsync(spec, progress, launch.Token).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            bool stopped = EndLaunch();
            WorkerExit exit = stopped || cancellation.IsCancellationRequested ? StartStopped
                : new WorkerExit(WorkerExitReason.Failed, 1, e is OperationCanceledException ? $"the VM was not built and started within {longest.TotalSeconds:0} s" : e.Message);
            await AbandonAsync(exit, wanted: planned is not null && !stopped).ConfigureAwait(false);
            ApiException? told = e switch
            {
                _ when stopped => new ApiException(409, "start-stopped", "the start was stopped", $"{Record.Name} was stopped while it was started", inner: e),
                WorkerException refused => Refused(refused),
                OperationCanceledException when !cancellation.IsCancellationRequested => new ApiException(504, "start-timeout", "the start took too long", $"{Record.Name}: {exit.Message}", inner: e),
                _ => null,
            };
            if (told is not null)
            {
                throw told;
            }

            throw;
        }
        finally
        {
            EndLaunch();
        }
    }

    private async Task RunWorkerAsync(VmSpec spec, Action<double>? progress, CancellationToken cancellation)
    {
        // Written first: a daemon that dies from here on finds the worker, or knows that it is missing.
        lock (_gate)
        {
            Save(_record with { WantedOn = true });
        }

        IWorker worker = await _launcher.LaunchAsync(_record.Id, spec, progress, cancellation).ConfigureAwait(false);
        lock (_gate)
        {
            _worker = worker;
            _startedAt = Environment.TickCount64;
            _stops.Begin();
        }

        Watch(worker);
        await TellFitAsync(worker, spec, cancellation).ConfigureAwait(false);
        await worker.StartAsync(cancellation).ConfigureAwait(false);
        MoveIfPossible(VmEvent.Started);
    }

    /// <summary>The launch is over; true when a stop ended it.</summary>
    private bool EndLaunch()
    {
        lock (_gate)
        {
            bool stopped = _launch?.Stopped == true;
            _launch = null;
            return stopped;
        }
    }

    internal Task<VmInfo> PauseAsync(CancellationToken cancellation) => InTurn(async () =>
    {
        IWorker worker = Require(VmEvent.Paused);
        await Call(() => worker.PauseAsync(cancellation)).ConfigureAwait(false);
        MoveIfPossible(VmEvent.Paused);
    }, cancellation);

    internal Task<VmInfo> ResumeAsync(CancellationToken cancellation) => InTurn(async () =>
    {
        IWorker worker = Require(VmEvent.Resumed);
        await Call(() => worker.ResumeAsync(cancellation)).ConfigureAwait(false);
        MoveIfPossible(VmEvent.Resumed);
    }, cancellation);

    internal Task<VmInfo> PressPowerButtonAsync(CancellationToken cancellation) => InTurn(async () =>
    {
        IWorker worker = Require(VmEvent.PowerButton);
        await Call(() => worker.PressPowerButtonAsync(cancellation)).ConfigureAwait(false);
    }, cancellation);

    internal Task<VmInfo> WakeAsync(CancellationToken cancellation) => InTurn(async () =>
    {
        IWorker worker = Require(VmEvent.Wake);
        await Call(() => worker.WakeAsync(cancellation)).ConfigureAwait(false);
    }, cancellation);

    /// <summary>Whether the spec names the file.</summary>
    internal bool Uses(string path)
    {
        lock (_gate)
        {
            return _spec is { } spec
                ? _unstored.ContainsValue(path) || spec.Disks.Any(d => string.Equals(Path.GetFullPath(d.Path, "/"), path, StringComparison.Ordinal))
                : _record.Spec.Contains(Path.GetFileName(path), StringComparison.Ordinal);
        }
    }

    internal async Task<WorkerStats> StatsAsync(CancellationToken cancellation)
    {
        IWorker worker = Alive();
        WorkerStats counted = await Call(() => worker.GetStatsAsync(cancellation)).ConfigureAwait(false);
        return TapCounters.Fill(counted, OwnTaps()) with { Throttling = worker.CpuThrottling };
    }

    internal Task LimitAsync(LimitsBody limits, CancellationToken cancellation) => Call(() => Alive().LimitAsync(limits, cancellation));

    /// <summary>What the guest says of its memory is as new as its last answer: one that is old is asked for again, and waited for a moment.</summary>
    internal async Task<VmMemory> MemoryAsync(CancellationToken cancellation)
    {
        IWorker worker = Alive();
        VmMemory memory = await Call(() => worker.MemoryAsync(null, cancellation)).ConfigureAwait(false);
        for (int i = 0; i < 4 && memory.Balloon is { SaidMsAgo: > 1000 }; i++)
        {
            await Task.Delay(50, cancellation).ConfigureAwait(false);
            memory = await Call(() => worker.MemoryAsync(null, cancellation)).ConfigureAwait(false);
        }

        return memory;
    }

    /// <summary>Passes a wish on and waits until the guest fulfilled it, or the time is over: the answer says how far it came.</summary>
    internal async Task<VmMemory> ChangeMemoryAsync(MemoryWish wish, TimeSpan patience, CancellationToken cancellation)
    {
        IWorker worker = Alive();
        if (wish is { Auto: true, Bytes: not null })
        {
            throw new ApiException(422, "memory-impossible", "a size or automatic", $"{Record.Name}: a vnode has either the size it is given, or the one the balancer gives it");
        }

        VmMemory memory = await Call(() => worker.MemoryAsync(wish.Bytes is null && wish.BalloonBytes is null ? null : wish with { Auto = null }, cancellation)).ConfigureAwait(false);
        if (wish.Auto == true && memory.Vnodes.FirstOrDefault(v => v.Vnode == (wish.Vnode ?? 0)) is { BelowBytes: > 0 } below)
        {
            // The balancer keeps to minMemory: what a size put below it ends with the size.
            memory = await Call(() => worker.MemoryAsync(new MemoryWish(below.Vnode, below.LeastBytes), cancellation)).ConfigureAwait(false);
        }

        Pin(wish); // only what the worker did not refuse
        long begin = Environment.TickCount64;
        for (int delay = 5; !memory.Settled && Environment.TickCount64 - begin < patience.TotalMilliseconds; delay = Math.Min(delay * 2, 250))
        {
            await Task.Delay(delay, cancellation).ConfigureAwait(false);
            memory = await Call(() => worker.MemoryAsync(null, cancellation)).ConfigureAwait(false);
        }

        DaemonLog.MemoryChanged(_log, Record.Name, memory.Settled ? "as asked" : "not as asked", string.Join(", ", memory.Vnodes.Select(v => $"vnode {v.Vnode}: asked {new ByteSize(v.AskedBytes)}, has {new ByteSize(v.PresentBytes)}")));
        return memory;
    }

    internal Task<Stream> OpenConsoleAsync(CancellationToken cancellation) => Alive().OpenConsoleAsync(cancellation);

    /// <summary>The terminal behind a console has another size. A worker that ended or does not answer is no error of who tells so.</summary>
    internal async Task ResizeConsoleAsync(ConsoleSize size, CancellationToken cancellation)
    {
        try
        {
            await (Now().Worker?.ResizeConsoleAsync(size, cancellation) ?? Task.CompletedTask).ConfigureAwait(false);
        }
        catch (WorkerException)
        {
            return; // its console ends, too, and tells
        }
    }

    /// <summary>Replaces the spec; the VM must not run.</summary>
    internal Task<VmInfo> ReplaceAsync(string yaml, string folder, VmSpec spec, long? revision, CancellationToken cancellation) => InTurn(() =>
    {
        lock (_gate)
        {
            CheckRevision(revision);
            RequireNotAlive("changed");
            CancelRestart();
            Save(_record with { Spec = yaml, Folder = folder, Revision = _record.Revision + 1 });
            (_spec, _specProblem) = (spec, null);
            _events.Publish("changed", _record.Name);
        }

        return Task.CompletedTask;
    }, cancellation);

    /// <summary>Removes the record; the VM must not run.</summary>
    internal Task<VmInfo> RemoveAsync(long? revision, CancellationToken cancellation) => InTurn(() =>
    {
        lock (_gate)
        {
            CheckRevision(revision);
            RequireNotAlive("deleted");
            CancelRestart();
            _inventory.Remove(_record);
            _events.Publish("deleted", _record.Name);
            _turns.Close(new ApiException(404, "vm-not-found", "no such VM", $"{_record.Name} was deleted")); // those that wait must not touch what is gone
        }

        return Task.CompletedTask;
    }, cancellation);

    /// <summary>Lets go of the worker without ending it.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            CancelRestart();
            IWorker? worker = _worker;
            _worker = null;
            _ = worker?.DisposeAsync().AsTask();
            _turns.Close(new ApiException(503, "vmmd-ends", "vmmd ends", $"{_record.Name}: vmmd ends; the VM goes on, ask the next vmmd"));
        }
    }

    private static WorkerExit StartStopped { get; } = new(WorkerExitReason.Stopped, 0, "its start was given up, as somebody wished");

    private static async Task Call(Func<Task> command)
    {
        try
        {
            await command().ConfigureAwait(false);
        }
        catch (WorkerException e)
        {
            throw Refused(e);
        }
    }

    private static async Task<T> Call<T>(Func<Task<T>> question)
    {
        try
        {
            return await question().ConfigureAwait(false);
        }
        catch (WorkerException e)
        {
            throw Refused(e);
        }
    }

    private static ApiException Refused(WorkerException e) => new(StatusOf(e.Code), e.Code, "the worker refused or failed", e.Message, inner: e);

    private static int StatusOf(string code) => code switch
    {
        "limits-impossible" or "memory-impossible" or "no-balloon" or "not-hotpluggable" or "rehome-impossible" => 422,
        "no-such-device" => 404,
        "no-slot" or "device-busy" or "disk-in-use" or "wrong-state" => 409,
        _ => 502,
    };

    private async Task<VmInfo> InTurn(Func<Task> command, CancellationToken cancellation)
    {
        using IDisposable turn = await _turns.TakeAsync(Record.Name, cancellation).ConfigureAwait(false);
        await command().ConfigureAwait(false);
        return Info;
    }

    private void Watch(IWorker worker)
    {
        _told = 0;
        worker.OnGuestEvent(told => OnGuestEvent(worker, told));
        lock (_gate)
        {
            _disks.Reset(_spec);
        }

        worker.OnDiskError(fault => OnDiskError(worker, fault));
        worker.OnDeviceRemoved(OnDeviceRemoved);
        worker.OnConnection(connected => OnConnection(worker, connected));
        _ = worker.Ended.ContinueWith(ended => Over(worker, ended.Result), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
    }

    /// <summary>What the worker told while there was no connection is lost: what matters is learnt anew.</summary>
    private void OnConnection(IWorker worker, bool connected)
    {
        if (connected)
        {
            DaemonLog.Reconnected(_log, Record.Name, worker.ProcessId);
            _events.Publish("worker-back", Record.Name);
            _ = Task.Run(() => LearnDevicesAsync(worker, CancellationToken.None));
        }
        else
        {
            DaemonLog.ConnectionLost(_log, Record.Name, worker.ProcessId);
            _events.Publish("worker-lost", Record.Name, message: "the connection to its worker is lost; the VM goes on, the connection is made again");
        }
    }

    /// <summary>The worker is gone. Called once or more; only the first call for the present worker counts.</summary>
    private void Over(IWorker worker, WorkerExit exit)
    {
        lock (_gate)
        {
            if (!ReferenceEquals(_worker, worker))
            {
                return;
            }

            bool stopped = _stops.AreWanted || _state == VmState.Stopping;
            _worker = null;
            _unstored.Clear();
            _plugged.Clear();
            _leaving.Clear();
            _pinned.Clear();
            Become(VmLifeCycle.TryNext(_state, VmLifeCycle.EventOf(exit.Reason), out VmState next) ? next : VmState.Failed);
            _events.Publish("ended", _record.Name, exit: exit);
            WorkerExit kept = exit with { Report = null }; // in the event and in the log
            bool again = !stopped && PlanRestart(exit, TimeSpan.FromMilliseconds(Environment.TickCount64 - _startedAt));
            SaveEnd(again, kept); // wanted on while its restart is due: a daemon that comes in between goes on with it
        }

        DaemonLog.VmEnded(_log, _record.Name, exit.Reason, exit.Message ?? "");
        foreach (string line in exit.Report ?? [])
        {
            DaemonLog.CrashReport(_log, _record.Name, line);
        }

        _ = worker.DisposeAsync().AsTask();
    }

    /// <summary>A start that did not succeed: nothing is left, and the record says why.</summary>
    /// <param name="exit">Why.</param>
    /// <param name="wanted">It is to run all the same: who calls plans the next start, and a daemon that comes in between does.</param>
    private async Task AbandonAsync(WorkerExit exit, bool wanted)
    {
        IWorker? worker;
        lock (_gate)
        {
            worker = _worker;
            _worker = null;
            if (VmLifeCycle.TryNext(_state, VmLifeCycle.EventOf(exit.Reason), out VmState over))
            {
                Become(over);
                SaveEnd(wanted, exit);
            }
        }

        if (worker is not null)
        {
            using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(20));
            try
            {
                await worker.StopAsync(deadline.Token).ConfigureAwait(false);
            }
            catch (Exception e) when (e is WorkerException or OperationCanceledException)
            {
                DaemonLog.WorkerLeft(_log, _record.Name, worker.ProcessId, e.Message);
            }

            await worker.DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Writes how it ended, and whether it is to run. Under the lock; nobody waits for this change.</summary>
    private void SaveEnd(bool wanted, WorkerExit exit)
    {
        VmRecord next = _record with { WantedOn = wanted, LastExit = exit };
        try
        {
            Save(next);
        }
#pragma warning disable CA1031 // In memory it stands; the next daemon finds a VM that should run and no worker, and says so.
        catch (Exception e)
#pragma warning restore CA1031
        {
            DaemonLog.Unsaved(_log, e, _record.Name);
            _record = next;
        }
    }

    private IWorker Alive()
    {
        lock (_gate)
        {
            return _worker ?? throw WrongState("does not run");
        }
    }

    /// <summary>The worker, when the event is possible now.</summary>
    private IWorker Require(VmEvent @event)
    {
        lock (_gate)
        {
            return _worker is not null && VmLifeCycle.TryNext(_state, @event, out _) ? _worker : throw WrongState($"cannot be {VmLifeCycle.Wish(@event)}");
        }
    }

    private void Move(VmEvent @event)
    {
        lock (_gate)
        {
            Become(VmLifeCycle.TryNext(_state, @event, out VmState next) ? next : throw WrongState($"cannot be {VmLifeCycle.Wish(@event)}"));
        }
    }

    /// <summary>After the worker obeyed. A guest may have ended meanwhile (a short one within its start); then that is what stands.</summary>
    private void MoveIfPossible(VmEvent @event)
    {
        lock (_gate)
        {
            Become(VmLifeCycle.TryNext(_state, @event, out VmState next) ? next : _state);
        }
    }

    /// <summary>The state, and who listens hears of it. Under the lock.</summary>
    private void Become(VmState state)
    {
        if (_state != state)
        {
            _state = state;
            _events.Publish("state", _record.Name, state);
        }
    }

    private void RequireNotAlive(string what)
    {
        if (HasOrGetsWorker)
        {
            throw new ApiException(409, "wrong-state", "the VM is in another state", $"{_record.Name} is {_state} and cannot be {what}: stop it first");
        }
    }

    private void CheckRevision(long? revision)
    {
        if (revision is { } wanted && wanted != _record.Revision)
        {
            throw new ApiException(412, "revision-changed", "somebody changed it first", $"{_record.Name} is at revision {_record.Revision}, not {wanted}: read it again");
        }
    }

    private ApiException WrongState(string why) => new(409, "wrong-state", "the VM is in another state", $"{_record.Name} is {_state}: it {why}");

    private void Save(VmRecord record)
    {
        _inventory.Update(record);
        _record = record;
    }
}
