using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Saved;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>How a VM comes to have a worker: somebody starts it, a restart is due, or a daemon finds its worker.</summary>
internal sealed class VmStarts
{
    private static readonly TimeSpan s_end = TimeSpan.FromSeconds(20);

    private readonly VmSupervisor _vm;
    private readonly IWorkerLauncher _launcher;
    private readonly VmHomes _homes;
    private readonly VmDevices _devices;
    private readonly VmCpuTime _cpu;
    private readonly VmUpgrades _upgrades;
    private readonly VmMigrations _migrations;
    private readonly VmSaves _saves;
    private readonly VmMemoryRestore _restore;
    private readonly VmDiskCopies _copies;
    private readonly VmDiskCommits _commits;
    private readonly VmSnapshots _snapshots;
    private readonly VmChangeLogs _logs;
    private readonly VmStandardAgent _agent;
    private readonly VmSeed _seed;
    private readonly Func<VmSpec, IDisposable> _admit;

    /// <param name="vm">The VM.</param>
    /// <param name="launcher">Gives it workers.</param>
    /// <param name="homes">Tells where it came to lie.</param>
    /// <param name="devices">Learns what an adopted worker has.</param>
    /// <param name="cpu">Learns how an adopted worker is limited.</param>
    /// <param name="upgrades">Settles what an earlier daemon was at.</param>
    /// <param name="migrations">Settles what an earlier daemon was at.</param>
    /// <param name="saves">Settles what an earlier daemon was at.</param>
    /// <param name="restore">Learns of a lazy restore.</param>
    /// <param name="copies">Settles what an earlier daemon was at.</param>
    /// <param name="commits">Settles what an earlier daemon was at.</param>
    /// <param name="snapshots">Settles a snapshot of an earlier daemon.</param>
    /// <param name="logs">Begin before the guest runs.</param>
    /// <param name="agent">Sets the clock of a guest that was saved.</param>
    /// <param name="seed">Learns that a run has begun.</param>
    /// <param name="admit">Throws when the VM cannot run beside the others; its answer is kept until the VM runs, or is not to.</param>
    internal VmStarts(
        VmSupervisor vm, IWorkerLauncher launcher, VmHomes homes, VmDevices devices, VmCpuTime cpu, VmUpgrades upgrades,
        VmMigrations migrations, VmSaves saves, VmMemoryRestore restore, VmDiskCopies copies, VmDiskCommits commits,
        VmSnapshots snapshots, VmChangeLogs logs, VmStandardAgent agent, VmSeed seed, Func<VmSpec, IDisposable> admit)
    {
        (_vm, _launcher, _homes, _devices, _cpu, _upgrades) = (vm, launcher, homes, devices, cpu, upgrades);
        (_migrations, _saves, _restore) = (migrations, saves, restore);
        (_copies, _commits, _snapshots, _logs, _agent, _seed, _admit) = (copies, commits, snapshots, logs, agent, seed, admit);
        vm.Ends.StartDue = StartDueAsync;
    }

    private static WorkerExit StartStopped { get; } = new(ExitReason.Stopped, 0, "its start was given up, as somebody wished");

    /// <summary>Starts it.</summary>
    /// <param name="progress">Hears from 0 to 1 how far the building of the VM is; null: nobody listens.</param>
    /// <param name="cancellation">Gives the start up; so does a stop.</param>
    /// <exception cref="ApiException">It cannot be started.</exception>
    internal Task StartAsync(Action<double>? progress, CancellationToken cancellation) => RunAsync(VmOperation.Start, () =>
    {
        _vm.ForgetRestarts();
        return LaunchAsync(null, null, lazily: false, progress, cancellation);
    }, cancellation);

    /// <summary>Goes on with the VM where it was saved.</summary>
    /// <param name="saved">The folder; owned by the caller.</param>
    /// <param name="lazily">It runs at once, and its memory comes from there while it runs.</param>
    /// <param name="progress">Hears from 0 to 1 how far it is; null: nobody listens.</param>
    /// <param name="cancellation">Gives the restore up; so does a stop.</param>
    /// <exception cref="ApiException">It is not saved there, or cannot be restored: it is saved as before.</exception>
    internal Task RestoreAsync(SavedVmFolder saved, bool lazily, Action<double>? progress, CancellationToken cancellation) =>
        RunAsync(VmOperation.Start, () =>
        {
            if (_vm.Store.Record.Saved is not { IsWhole: true } place
                || !string.Equals(place.Folder, saved.Folder, StringComparison.Ordinal))
            {
                throw _vm.WrongState(_vm.Store.Record.Saved is { } other
                    ? $"is saved in {other.Folder}, not in {saved.Folder}"
                    : $"is not saved: it went on since it was saved in {saved.Folder}, and its disks have changed");
            }

            _vm.ForgetRestarts();
            return LaunchAsync(null, saved, lazily, progress, cancellation);
        }, cancellation);

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
        catch (ApiException e) when (e.Problem.Code is "start-stopped" or "vmmd-ends" or "vm-not-found" or ControlCodes.WrongState)
        {
            // Somebody else decided otherwise, or was first.
        }
#pragma warning disable CA1031 // Whatever it was, it is about this VM only: it is told, and the others are started.
        catch (Exception e)
#pragma warning restore CA1031
        {
            DaemonLog.StartFault(_vm.Log, e, _vm.Name);
            _vm.Ends.PlanAnotherStart(new WorkerExit(ExitReason.Failed, 1, e.Message));
        }
    }

    private async Task StartDueAsync(PlannedStart planned)
    {
        try
        {
            await Task.Delay(planned.Delay, planned.Cancelled).ConfigureAwait(false);
            await RunAsync(
                VmOperation.Start,
                () => LaunchAsync(planned, null, lazily: false, null, CancellationToken.None),
                planned.Cancelled).ConfigureAwait(false);
        }
        catch (Exception) when (planned.Cancelled.IsCancellationRequested)
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
            DaemonLog.RestartFailed(_vm.Log, _vm.Name, e.Message);
            _vm.Ends.PlanAnotherStart(new WorkerExit(ExitReason.Failed, 1, e.Message));
        }
    }

    /// <summary>
    /// Takes over a worker of an earlier daemon; returns when all is known of it, which a worker that hangs delays. One whose VM was built
    /// but not started was cut off in a start: the start is finished.
    /// </summary>
    /// <param name="worker">The worker.</param>
    /// <param name="others">Workers of the VM that do not count, and are ended.</param>
    /// <param name="cancellation">This daemon ends.</param>
    internal async Task AdoptAsync(IWorker worker, IReadOnlyList<IWorker> others, CancellationToken cancellation)
    {
        if (_vm.Store.Spec?.Vsock is { } vsock)
        {
            worker.ServeVsock(vsock.Path);
        }

        worker.ServeStorage(_vm.Store.Spec?.Disks ?? [], _vm.Store.Spec?.Devices ?? []);
        worker.ServeNets(_vm.Store.Spec?.Nets ?? []);
        worker.ServeShares(_vm.Store.Spec?.Shares ?? []);

        bool answers = worker.Greeted.IsCompleted;
        _vm.AdoptWorker(worker, answers);
        if (!answers)
        {
            DaemonLog.Unanswering(_vm.Log, _vm.Name, worker.ProcessId);
        }

        if (!await worker.Greeted.ConfigureAwait(false))
        {
            return; // it is being ended, and its end tells why
        }

        await RunAsync(VmOperation.Adopt, () => FinishAdoptionAsync(worker, others, cancellation), cancellation).ConfigureAwait(false);
    }

    private async Task FinishAdoptionAsync(IWorker worker, IReadOnlyList<IWorker> others, CancellationToken cancellation)
    {
        await _upgrades.SettleAdoptedAsync(worker, others, cancellation).ConfigureAwait(false);
        if (!await _migrations.SettleAdoptedAsync(worker, cancellation).ConfigureAwait(false)
            || !await _saves.SettleAdoptedAsync(worker, cancellation).ConfigureAwait(false))
        {
            return;
        }

        using CancellationTokenSource launch = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        if (!_vm.TryLearnState(worker, launch, out bool isLaunch))
        {
            return;
        }

        _cpu.Learn(worker);
        if (!isLaunch)
        {
            _seed.MarkUsed();
            await _restore.LearnAsync(worker, cancellation).ConfigureAwait(false);
            await _copies.SettleAdoptedAsync(worker, cancellation).ConfigureAwait(false);
            await _commits.SettleAdoptedAsync(worker, cancellation).ConfigureAwait(false);
            await _snapshots.SettleAdoptedAsync(worker, cancellation).ConfigureAwait(false);
            await _devices.LearnAsync(worker, cancellation).ConfigureAwait(false);
            await _logs.LearnAsync(worker, cancellation).ConfigureAwait(false);
            return;
        }

        try
        {
            await _logs.BeginAsync(worker, launch.Token).ConfigureAwait(false);
            await worker.StartAsync(launch.Token).ConfigureAwait(false);
            _seed.MarkUsed();
            _vm.MoveIfPossible(VmEvent.Started);
        }
        catch (Exception e) when (e is WorkerException or OperationCanceledException)
        {
            WorkerExit exit = new(
                ExitReason.Failed, 1, $"its start was cut off by the end of the earlier vmmd and could not be finished: {e.Message}");
            bool stopped = _vm.EndLaunch();
            await AbandonAsync(stopped ? StartStopped : exit, wanted: !stopped).ConfigureAwait(false);
            if (!stopped)
            {
                _vm.Ends.PlanAnotherStart(exit);
            }
        }
        finally
        {
            _vm.EndLaunch();
        }
    }

    /// <param name="planned">The plan that this start is due by, which is over by it; null: somebody asked for it.</param>
    /// <param name="saved">Where the VM is saved, to go on with it; null: it boots.</param>
    /// <param name="lazily">Its memory comes from there while it runs.</param>
    /// <param name="progress">Hears how far it is.</param>
    /// <param name="cancellation">Gives up.</param>
    private async Task LaunchAsync(
        PlannedStart? planned, SavedVmFolder? saved, bool lazily, Action<double>? progress, CancellationToken cancellation)
    {
        _seed.Settle();
        _upgrades.RequireSettled();
        _vm.Store.RequireSettled();
        VmSpec spec = saved is null ? _vm.Store.RequireSpec() : ReadSpec(saved);
        if (saved is null && _vm.Store.Record.Saved is { IsWhole: true } place)
        {
            throw new ApiException(409, "vm-saved", "the VM is saved",
                $"{_vm.Name} is saved in {place.Folder}: 'vmmctl vm restore {place.Folder}' goes on with it; to boot it anew, forget that "
                    + $"with 'vmmctl vm discard-saved {_vm.Name}'");
        }

        using IDisposable admitted = _admit(spec);
        using CancellationTokenSource launch = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        TimeSpan longest = _launcher.LongestStart + BuildProgress.Longest(spec) + (saved is null ? TimeSpan.Zero : SaveTime.Longest(spec));
        launch.CancelAfter(longest);
        if (!_vm.TryBeginLaunch(planned, launch))
        {
            return;
        }

        try
        {
            await (saved is null
                ? RunWorkerAsync(spec, progress, launch.Token)
                : RunSavedAsync(saved, spec, lazily, progress, launch.Token)).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            bool stopped = _vm.EndLaunch();
            WorkerExit exit = stopped || cancellation.IsCancellationRequested ? StartStopped
                : new WorkerExit(ExitReason.Failed, 1, e is OperationCanceledException
                    ? $"the VM was not built and started within {longest.TotalSeconds:0} s"
                    : e.Message);
            await AbandonAsync(exit, wanted: planned is not null && !stopped).ConfigureAwait(false);
            if (Refusal(e, stopped, cancellation.IsCancellationRequested, exit) is { } refusal)
            {
                throw refusal;
            }

            throw;
        }
        finally
        {
            _vm.EndLaunch();
        }
    }

    private ApiException? Refusal(Exception cause, bool stopped, bool cancelled, WorkerExit exit) => cause switch
    {
        _ when stopped =>
            new ApiException(409, "start-stopped", "the start was stopped", $"{_vm.Name} was stopped while it was started", inner: cause),
        WorkerException refused => WorkerCalls.ToApi(refused),
        StorageException or IOException or UnauthorizedAccessException =>
            new ApiException(422, "folder-refused", "the saved VM cannot be read", $"{_vm.Name}: {cause.Message}", inner: cause),
        OperationCanceledException when !cancelled =>
            new ApiException(504, "start-timeout", "the start took too long", $"{_vm.Name}: {exit.Message}", inner: cause),
        _ => null,
    };

    private async Task RunWorkerAsync(VmSpec spec, Action<double>? progress, CancellationToken cancellation)
    {
        // Written first: a daemon that dies from here on finds the worker, or knows that it is missing.
        _vm.Store.Change(record => record with { WantedOn = true });
        _vm.Store.Commit();
        IWorker worker = await _launcher.LaunchAsync(_vm.Store.Record.Id, spec, progress, cancellation).ConfigureAwait(false);
        _vm.AttachWorker(worker);
        await _homes.ReportFitAsync(worker, spec, cancellation).ConfigureAwait(false);
        await _logs.BeginAsync(worker, cancellation).ConfigureAwait(false);
        await worker.StartAsync(cancellation).ConfigureAwait(false);
        _seed.MarkUsed();
        _vm.MoveIfPossible(VmEvent.Started);
    }

    private async Task RunSavedAsync(
        SavedVmFolder saved, VmSpec spec, bool lazily, Action<double>? progress, CancellationToken cancellation)
    {
        if (lazily)
        {
            _restore.RequirePossible(spec);
        }

        saved.OpenFiles(spec);
        IWorker worker = await _launcher.RestoreAsync(
            _vm.Store.Record.Id, spec, saved.Files, lazily, progress, cancellation).ConfigureAwait(false);
        _vm.AttachWorker(worker);
        if (lazily)
        {
            _restore.Begin(worker);
        }

        await _homes.ReportFitAsync(worker, spec, cancellation).ConfigureAwait(false);
        // Written before the guest runs: from then on its disks change, and nobody is to go on from the folder again.
        saved.MarkRestored();
        _vm.Store.Change(record => record with { Saved = null, WantedOn = true });
        _vm.Store.Commit();
        await _logs.BeginAsync(worker, cancellation).ConfigureAwait(false);
        await worker.StartAsync(cancellation).ConfigureAwait(false);
        _vm.MoveIfPossible(VmEvent.Started);
        _ = _agent.SetTimeAsync(); // it logs what comes of it
    }

    private VmSpec ReadSpec(SavedVmFolder saved)
    {
        try
        {
            (SavedVmNote note, VmSpec spec) = saved.ReadNote();
            return string.Equals(note.Id, _vm.Store.Record.Id, StringComparison.Ordinal)
                ? spec
                : throw new ApiException(
                    409, "saved-other", "another VM is saved there", $"{saved.Folder} is of another VM that was called {note.Name}");
        }
        catch (StorageException cause)
        {
            throw new ApiException(422, "folder-refused", "the saved VM cannot be read", $"{_vm.Name}: {cause.Message}", inner: cause);
        }
    }

    /// <summary>A start that did not succeed: nothing is left, and the record says why.</summary>
    private async Task AbandonAsync(WorkerExit exit, bool wanted)
    {
        if (_vm.Ends.Abandon(exit, wanted) is not { } worker)
        {
            return;
        }

        using CancellationTokenSource deadline = new(s_end);
        try
        {
            await worker.StopAsync(deadline.Token).ConfigureAwait(false);
            _logs.End();
        }
        catch (Exception e) when (e is WorkerException or OperationCanceledException)
        {
            DaemonLog.WorkerLeft(_vm.Log, _vm.Name, worker.ProcessId, e.Message);
        }

        await worker.DisposeAsync().ConfigureAwait(false);
    }

    private Task RunAsync(VmOperation operation, Func<Task> carryOut, CancellationToken cancellation) =>
        _vm.Operations.RunAsync(operation, _vm.Name, carryOut, cancellation);
}
