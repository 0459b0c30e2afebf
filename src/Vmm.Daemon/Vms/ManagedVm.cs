using Microsoft.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Replicas.Sending;
using Vmm.Daemon.Saved;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>One VM: its record, its life, and a service for each topic.</summary>
public sealed class ManagedVm : IDisposable
{
    private readonly VmRecordStore _store;
    private readonly IWorkerLauncher _launcher;
    private readonly VmSupervisor _supervisor;
    private readonly VmStarts _starts;
    private readonly VmStops _stops;
    private readonly VmDiskStalls _stalls;
    private readonly VmMemoryRestore _memoryRestore;

    /// <param name="record">What is stored.</param>
    /// <param name="inventory">Where it is stored.</param>
    /// <param name="launcher">Gives it workers.</param>
    /// <param name="events">Who listens hears of what happens.</param>
    /// <param name="log">The log.</param>
    /// <param name="storage">Where it may be saved.</param>
    /// <param name="admit">Throws when the VM cannot run beside the others; its answer is kept until the VM runs, or is not to.</param>
    /// <param name="admitTwice">The same for a second worker of a VM that runs.</param>
    /// <param name="othersOver">Names VMs other than one that use a file, or have images over it.</param>
    /// <param name="seeds">Keeps its seed; null: it can have none.</param>
    internal ManagedVm(VmRecord record, VmTable inventory, IWorkerLauncher launcher, EventHub events, ILogger log, StorageFolders storage,
        Func<VmSpec, IDisposable> admit, Func<VmSpec, IDisposable> admitTwice,
        Func<string, string, IReadOnlyList<string>> othersOver, SeedStore? seeds)
    {
        _launcher = launcher;
        _store = new VmRecordStore(record, inventory, log, seeds);
        _supervisor = new VmSupervisor(_store, events, log);
        Seed = new VmSeed(_supervisor, seeds);
        Devices = new VmDevices(_supervisor);
        ResidentLimit = new VmResidentLimit(_supervisor, admit);
        Memory = new VmMemoryControl(_supervisor, ResidentLimit);
        Homes = new VmHomes(_supervisor);
        CpuTime = new VmCpuTime(_supervisor);
        Console = new VmConsole(_supervisor);
        Controls = new VmControls(_supervisor, Devices, ResidentLimit);
        ChangeLogs = new VmChangeLogs(_supervisor, Devices, storage, () => ChangesFolder);
        DiskSizes = new VmDiskSizes(_supervisor, Devices, ChangeLogs, storage);
        DiskCopies = new VmDiskCopies(_supervisor, Devices, storage);
        DiskStreams = new VmDiskStreams(_supervisor, Devices);
        DiskCommits = new VmDiskCommits(_supervisor, Devices, storage, othersOver);
        StandardAgent = new VmStandardAgent(_supervisor);
        Exec = new VmGuestExec(_supervisor, StandardAgent);
        Agent = new VmGuestAgent(_supervisor, StandardAgent);
        Snapshots = new VmSnapshots(_supervisor, Devices, Agent, ChangeLogs, storage);
        Instants = new VmInstants(_supervisor, Devices, Snapshots, DiskCommits, storage);
        Backups = new VmBackups(_supervisor, Snapshots, Instants, storage);
        Cuts = new VmCuts(_supervisor, Snapshots, Instants, storage);
        Saves = new VmSaves(_supervisor, Devices, storage);
        Upgrades = new VmUpgrades(_supervisor, launcher, Devices, ChangeLogs, CpuTime, admitTwice);
        DiskFiles = new VmDiskFiles(_supervisor, Devices, storage, TimeProvider.System);
        Migrations = new VmMigrations(_supervisor, Devices, new MigrationOffers(_supervisor, DiskFiles, storage));
        Arrival = new VmArrival(_supervisor, Devices, CpuTime);
        _memoryRestore = new VmMemoryRestore(_supervisor);
        _starts = new VmStarts(
            _supervisor, launcher, Homes, Devices, CpuTime, Upgrades, Migrations, Saves, _memoryRestore, DiskCopies, DiskCommits, Snapshots,
            ChangeLogs, StandardAgent, Seed, admit);
        _stops = new VmStops(_supervisor, StandardAgent);
        _stalls = new VmDiskStalls(_supervisor, Devices);
        _supervisor.Ends.Over = () =>
        {
            Seed.Settle();
            ChangeLogs.End();
        };
        // Logs before the devices, which forget theirs.
        _supervisor.Observe(
            ChangeLogs, Devices, Memory, ResidentLimit, _stalls, _memoryRestore, DiskFiles, Cuts,
            new WorkerReports(_supervisor, Devices));
    }

    internal VmRecord Record => _store.Record;

    /// <summary>Its spec; null when the stored text cannot be read.</summary>
    internal VmSpec? Spec => _store.Spec;

    /// <summary>Tells the addresses of a VM on private networks; null: there are none.</summary>
    internal Func<string, IReadOnlyList<string>>? AddressesOf { get; init; }

    /// <summary>Where the change logs of its disks are; null: it has none.</summary>
    internal string? ChangesFolder { get; init; }

    /// <summary>Its worker's process; null when it has none.</summary>
    internal int? WorkerProcess => _supervisor.Worker?.ProcessId;

    internal VmSeed Seed { get; }

    internal VmDevices Devices { get; }

    internal VmDiskSizes DiskSizes { get; }

    internal VmDiskCopies DiskCopies { get; }

    internal VmSnapshots Snapshots { get; }

    internal VmInstants Instants { get; }

    internal VmChangeLogs ChangeLogs { get; }

    internal VmBackups Backups { get; }

    internal VmCuts Cuts { get; }

    internal VmDiskFiles DiskFiles { get; }

    internal VmDiskStreams DiskStreams { get; }

    internal VmDiskCommits DiskCommits { get; }

    internal VmMemoryControl Memory { get; }

    internal VmResidentLimit ResidentLimit { get; }

    internal VmHomes Homes { get; }

    internal VmCpuTime CpuTime { get; }

    internal VmConsole Console { get; }

    internal VmControls Controls { get; }

    internal VmGuestAgent Agent { get; }

    internal VmStandardAgent StandardAgent { get; }

    internal VmGuestExec Exec { get; }

    internal VmSaves Saves { get; }

    internal VmUpgrades Upgrades { get; }

    internal VmMigrations Migrations { get; }

    internal VmArrival Arrival { get; }

    /// <summary>Something runs or is about to.</summary>
    internal bool IsAlive => _supervisor.IsAlive;

    /// <summary>The host's socket of its vsock; null when it has none.</summary>
    internal string? VsockPath => _store.Spec?.Vsock?.Path;

    /// <summary>It is to run from the boot of the host on, and does not yet.</summary>
    internal bool StartsByItself => _store.Spec is { Autostart: true } && _store.Record.Saved is null && _supervisor.IsIdle;

    /// <summary>What is known of it now. What is in force of its CPU limits is read from files, outside any lock.</summary>
    internal VmInfo Info
    {
        get
        {
            (VmState state, IWorker? worker, int restarts, DateTimeOffset? nextStart) = _supervisor.Snapshot;
            (VmRecord record, VmSpec? spec) = (_store.Record, _store.Spec);
            return new VmInfo(record.Id, record.Name, state, record.Revision, spec?.Cpus ?? 0, spec?.Memory ?? ByteSize.Zero,
                worker?.ProcessId, record.LastExit,
                restarts, nextStart, worker?.Confinement, CpuTime.LimitsOf(worker),
                record.Saved is { IsWhole: true } saved ? saved.Folder : null, _stalls.WaitsFor(state),
                AddressesOf?.Invoke(record.Name) is { Count: > 0 } addresses ? addresses : null,
                _memoryRestore.GoesOn ? true : null);
        }
    }

    /// <inheritdoc cref="VmStarts.StartAsync"/>
    internal Task<VmInfo> StartAsync(Action<double>? progress, CancellationToken cancellation) =>
        AnswerAsync(_starts.StartAsync(progress, cancellation));

    /// <inheritdoc cref="VmStarts.RestoreAsync"/>
    internal Task RestoreAsync(SavedVmFolder saved, bool lazily, Action<double>? progress, CancellationToken cancellation) =>
        _starts.RestoreAsync(saved, lazily, progress, cancellation);

    /// <inheritdoc cref="VmStarts.AutostartAsync"/>
    internal Task AutostartAsync(CancellationToken cancellation) => _starts.AutostartAsync(cancellation);

    /// <inheritdoc cref="VmStarts.AdoptAsync"/>
    internal Task AdoptAsync(IWorker worker, IReadOnlyList<IWorker> others, CancellationToken cancellation) =>
        _starts.AdoptAsync(worker, others, cancellation);

    /// <inheritdoc cref="RunEnds.Lost"/>
    internal void Lost() => _supervisor.Ends.Lost();

    /// <inheritdoc cref="VmStops.StopAsync"/>
    internal Task<VmInfo> StopAsync(TimeSpan? patience, CancellationToken cancellation) =>
        AnswerAsync(_stops.StopAsync(patience, cancellation));

    /// <summary>Replaces the spec; the VM must not run.</summary>
    /// <exception cref="ApiException">It runs, or was changed meanwhile.</exception>
    internal Task<VmInfo> ReplaceAsync(string yaml, string folder, VmSpec spec, long? revision, CancellationToken cancellation) =>
        RunAsync(VmOperation.ReplaceSpec, () =>
        {
            _store.RequireSettled();
            _supervisor.RequireIdle("changed", revision);
            _store.WriteSpec(yaml, spec, folder);
            _supervisor.Events.Publish("changed", _store.Name);
        }, cancellation);

    /// <summary>Removes the record; the VM must not run.</summary>
    /// <param name="revision">The record is at this revision; null is any.</param>
    /// <param name="takeFolder">Begins to remove the disks that the VM owns.</param>
    /// <param name="cancellation">Ends the waiting for other commands.</param>
    /// <exception cref="ApiException">It runs, or was changed meanwhile.</exception>
    internal Task<VmInfo> RemoveAsync(
        long? revision, Func<VmFolderChange?> takeFolder, CancellationToken cancellation) => RunAsync(VmOperation.Delete, () =>
    {
        _store.RequireSettled();
        Cuts.RequireNotReplicated();
        _supervisor.RequireIdle("deleted", revision);
        string id = _store.Record.Id;
        using VmFolderChange? disks = takeFolder();
        _store.Remove();
        disks?.Complete();
        _launcher.Forget(id);
        Seed.Forget();
        _supervisor.Events.Publish("deleted", _store.Name);
        // Those that wait must not touch what is gone
        _supervisor.Close(new ApiException(404, "vm-not-found", "no such VM", $"{_store.Name} was deleted"));
    }, cancellation);

    /// <summary>It is another host's: the record goes, and what else this host has of it.</summary>
    /// <param name="kind">Kind of the event.</param>
    /// <param name="message">What it says.</param>
    internal void Leave(string kind, string message)
    {
        string id = _store.Record.Id;
        Cuts.Gone?.Invoke();
        _store.Remove();
        _launcher.Forget(id);
        Seed.Forget();
        _supervisor.Events.Publish(kind, _store.Name, message: message);
        _supervisor.Close(new ApiException(404, "vm-not-found", "no such VM", $"{_store.Name} {message}"));
    }

    /// <summary>Carries out a command, and answers how the VM is then.</summary>
    internal async Task<VmInfo> AnswerAsync(Task command)
    {
        await command.ConfigureAwait(false);
        return Info;
    }

    /// <summary>Lets go of the worker without ending it.</summary>
    public void Dispose()
    {
        _supervisor.Dispose();
        ChangeLogs.Dispose();
    }

    private Task<VmInfo> RunAsync(VmOperation operation, Action carryOut, CancellationToken cancellation) =>
        AnswerAsync(_supervisor.Operations.RunAsync(operation, _store.Name, () =>
        {
            carryOut();
            return Task.CompletedTask;
        }, cancellation));
}
