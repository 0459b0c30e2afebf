using Microsoft.Data.Sqlite;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Workers;
using Vmm.Machine.Spec;
using Vmm.Memory;

namespace Vmm.Daemon.Vms;

/// <summary>One VM: its record, its state, and its worker while it has one. Commands take turns; the end of a worker may come at any time.</summary>
public sealed partial class ManagedVm : IDisposable
{
    private readonly SemaphoreSlim _turn = new(1, 1);
    private readonly Lock _gate = new();
    private readonly VmInventory _inventory;
    private readonly IWorkerLauncher _launcher;
    private readonly ILogger _log;
    private VmRecord _record;
    private VmState _state;
    private IWorker? _worker;
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

    /// <summary>Takes over a worker of an earlier daemon. One whose VM was built but not started was cut off in a start: the start is finished.</summary>
    internal async Task AdoptAsync(IWorker worker, CancellationToken cancellation)
    {
        bool unfinished = worker.State is WorkerState.Idle or WorkerState.Ready;
        if (Now().Spec?.Vsock is { } vsock)
        {
            worker.ServeVsock(vsock.Path);
        }

        lock (_gate)
        {
            _worker = worker;
            _startedAt = Environment.TickCount64;
            Become(unfinished ? VmState.Starting : worker.State switch
            {
                WorkerState.Paused => VmState.Paused,
                WorkerState.Crashed => VmState.Crashed,
                _ => VmState.Running,
            });
        }

        LearnCpu(worker);
        Watch(worker);
        if (!unfinished)
        {
            await LearnDevicesAsync(worker, cancellation).ConfigureAwait(false);
            return;
        }

        try
        {
            await worker.StartAsync(cancellation).ConfigureAwait(false);
            MoveIfPossible(VmEvent.Started);
        }
        catch (WorkerException e)
        {
            await AbandonAsync($"its start was cut off by the end of the earlier vmmd and could not be finished: {e.Message}").ConfigureAwait(false);
        }
    }

    /// <summary>At the daemon's start: the VM should run, but no worker was found. It died with nobody watching.</summary>
    internal void Lost()
    {
        lock (_gate)
        {
            Become(VmState.Failed);
            WorkerExit exit = new(WorkerExitReason.WorkerDied, 1, "its worker was gone when vmmd started");
            Save(_record with { WantedOn = false, LastExit = exit });
            PlanRestart(exit, TimeSpan.Zero);
        }
    }

    internal Task<VmInfo> StartAsync(CancellationToken cancellation) => InTurn(() =>
    {
        lock (_gate)
        {
            CancelRestart();
            _plan.Reset();
        }

        return LaunchAsync(cancellation);
    }, cancellation);

    private async Task LaunchAsync(CancellationToken cancellation)
    {
        VmSpec spec = _spec ?? throw ApiException.OfSpec(_specProblem!);
        _fits(spec);
        lock (_gate)
        {
            if (_worker is not null)
            {
                throw WrongState("cannot be started: stop it first"); // crashed, and preserved
            }

            Move(VmEvent.Start);
        }

        try
        {
            // Written first: a daemon that dies from here on finds the worker, or knows that it is missing.
            lock (_gate)
            {
                Save(_record with { WantedOn = true });
            }

            IWorker worker = await _launcher.LaunchAsync(_record.Id, spec, cancellation).ConfigureAwait(false);
            lock (_gate)
            {
                _worker = worker;
                _startedAt = Environment.TickCount64;
                _stopWanted = false;
            }

            Watch(worker);
            await TellFitAsync(worker, spec, cancellation).ConfigureAwait(false);
            await worker.StartAsync(cancellation).ConfigureAwait(false);
            MoveIfPossible(VmEvent.Started);
        }
        catch (WorkerException e)
        {
            await AbandonAsync(e.Message).ConfigureAwait(false);
            throw Refused(e);
        }
        catch (Exception e)
        {
            await AbandonAsync(e.Message).ConfigureAwait(false);
            throw;
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

    /// <summary>Pulls the plug; with <paramref name="patience"/> the power button is pressed first, and the guest has so long to power off.</summary>
    internal Task<VmInfo> StopAsync(TimeSpan? patience, CancellationToken cancellation) => InTurn(async () =>
    {
        lock (_gate)
        {
            _stopWanted = _worker is not null;
            if (CancelRestart() && _worker is null)
            {
                Save(_record with { WantedOn = false });
                return;
            }
        }

        try
        {
            if (patience is { } wait && await PoweredOffAsync(wait, cancellation).ConfigureAwait(false))
            {
                return;
            }
        }
        catch (OperationCanceledException)
        {
            lock (_gate)
            {
                _stopWanted = false; // given up: what the guest does from here on is its own wish again
            }

            throw;
        }

        IWorker worker = Require(VmEvent.Stop);
        Move(VmEvent.Stop);
        await Call(() => worker.StopAsync(cancellation)).ConfigureAwait(false);
        Over(worker, await worker.Ended.WaitAsync(TimeSpan.FromSeconds(30), cancellation).ConfigureAwait(false));
    }, cancellation);

    /// <summary>Whether the spec names the file.</summary>
    internal bool Uses(string path)
    {
        lock (_gate)
        {
            return _spec is { } spec
                ? _unstored.Contains(path) || spec.Disks.Any(d => string.Equals(Path.GetFullPath(d.Path, "/"), path, StringComparison.Ordinal))
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
        }

        _turn.Dispose();
    }

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
        if (!await _turn.WaitAsync(TimeSpan.FromSeconds(60), cancellation).ConfigureAwait(false))
        {
            throw new ApiException(409, "vm-busy", "another command is being carried out", $"{Record.Name}: another command has been running for a minute: try again later");
        }

        try
        {
            await command().ConfigureAwait(false);
            return Info;
        }
        finally
        {
            _turn.Release();
        }
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
        _ = worker.Ended.ContinueWith(ended => Over(worker, ended.Result), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
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

            _worker = null;
            _unstored.Clear();
            _plugged.Clear();
            _leaving.Clear();
            _pinned.Clear();
            Become(VmLifeCycle.TryNext(_state, VmLifeCycle.EventOf(exit.Reason), out VmState next) ? next : VmState.Failed);
            _events.Publish("ended", _record.Name, exit: exit);
            WorkerExit kept = exit with { Report = null }; // in the event and in the log
            bool again = PlanRestart(exit, TimeSpan.FromMilliseconds(Environment.TickCount64 - _startedAt));
            try
            {
                // Wanted on while its restart is due: a daemon that comes in between goes on with it.
                Save(_record with { WantedOn = again, LastExit = kept });
            }
            catch (SqliteException e)
            {
                // Nobody waits for this change. In memory it stands; the next daemon finds a VM that should run and no worker, and says so.
                DaemonLog.Unsaved(_log, e, _record.Name);
                _record = _record with { WantedOn = again, LastExit = kept };
            }
        }

        DaemonLog.VmEnded(_log, _record.Name, exit.Reason, exit.Message ?? "");
        foreach (string line in exit.Report ?? [])
        {
            DaemonLog.CrashReport(_log, _record.Name, line);
        }

        _ = worker.DisposeAsync().AsTask();
    }

    /// <summary>A start that did not succeed: nothing is left, and the record says why.</summary>
    private async Task AbandonAsync(string why)
    {
        IWorker? worker;
        lock (_gate)
        {
            worker = _worker;
            _worker = null;
            if (VmLifeCycle.TryNext(_state, VmEvent.Failed, out VmState failed))
            {
                Become(failed);
                Save(_record with { WantedOn = false, LastExit = new WorkerExit(WorkerExitReason.Failed, 1, why) });
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
