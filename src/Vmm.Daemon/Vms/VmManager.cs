using System.Collections.Concurrent;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Images;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Networks;
using Vmm.Daemon.Saved;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.HostNet;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>All VMs of this host: the inventory, and the workers that run them.</summary>
public sealed class VmManager(
    VmTable inventory, IWorkerLauncher launcher, StorageFolders storage, ILogger<VmManager> log, EventHub? events = null)
    : IHostedService, IDisposable
{
    private static readonly TimeSpan s_adoption = TimeSpan.FromSeconds(2);

    private readonly ConcurrentDictionary<string, ManagedVm> _vms = new(StringComparer.Ordinal);
    private readonly SemaphoreSlim _changes = new(1, 1);
    private readonly CancellationTokenSource _ending = new();
    private bool _ended;

    /// <summary>Disks that are about to be named or deleted.</summary>
    internal DiskNames Disks { get; } = new();

    /// <summary>Makes the disks of VMs that stand on images; null: nobody does.</summary>
    internal ImageDisks? ImageDisks { get; init; }

    /// <summary>Private networks; null: there are none.</summary>
    internal NetworkStore? Networks { private get; init; }

    /// <summary>Devices of VMs on private networks.</summary>
    internal VmNetworks Nets => field ??= new VmNetworks(Networks, () => _vms.Values);

    /// <summary>Keeps the seeds of VMs; null: nobody does.</summary>
    internal SeedStore? Seeds { get; init; }

    /// <summary>What they are promised of the host's memory.</summary>
    internal MemoryPromises Promises { private get; init; } = MemoryPromises.Unbounded;

    /// <summary>What was decided over VMs of other hosts; null: none comes.</summary>
    internal DecisionTable? Decisions { private get; init; }

    /// <summary>Finds the vmmd of other hosts.</summary>
    internal MigrationPeers Peers { get; init; } = new(null);

    /// <summary>What happens to the VMs.</summary>
    internal EventHub Events { get; } = events ?? new EventHub();

    /// <summary>Reads the inventory and takes over the workers that an earlier daemon left. Called once, before anything else.</summary>
    public async Task StartAsync(CancellationToken cancellationToken)
    {
        foreach (VmRecord record in NewVms.Settle(inventory, Decisions))
        {
            _vms[record.Name] = Managed(record);
        }

        ImageDisks?.Folders.Settle(_vms.Keys.ToHashSet(StringComparer.Ordinal));
        Seeds?.Sweep(_vms.Values.Select(vm => vm.Record.Seed).Where(seed => seed is { IsDeleted: false }).Select(seed => seed!.File)
            .ToHashSet(StringComparer.Ordinal));
        List<Task> adoptions = [];
        HashSet<string> held = new(StringComparer.Ordinal), ending = new(StringComparer.Ordinal);
        foreach (IGrouping<string, IWorker> workers in
            (await launcher.AdoptAsync(cancellationToken).ConfigureAwait(false)).GroupBy(w => w.VmId, StringComparer.Ordinal))
        {
            adoptions.AddRange(Adopt([.. workers], held, ending));
        }

        foreach (ManagedVm vm in _vms.Values)
        {
            if (!held.Contains(vm.Record.Id))
            {
                launcher.SweepAfter(vm.Record.Id);
                vm.Upgrades.SettleLost(leaves: ending.Contains(vm.Record.Id));
                vm.Migrations.SettleLost(_ending.Token);
                vm.Saves.SettleLost();
                vm.DiskCopies.SettleLost();
                vm.DiskCommits.SettleLost();
                vm.Snapshots.SettleLost();
                vm.Seed.Settle();
            }

            if (vm.Record.WantedOn && !held.Contains(vm.Record.Id))
            {
                DaemonLog.Lost(log, vm.Record.Name);
                vm.Lost();
            }
        }

        // One that hangs keeps nobody waiting: its adoption goes on in the background.
        await Task.WhenAny(Task.WhenAll(adoptions), Task.Delay(s_adoption, cancellationToken)).ConfigureAwait(false);
        cancellationToken.ThrowIfCancellationRequested();
    }

    /// <summary>Takes over the workers of one VM; whether one has it is noted, or whether all are ended.</summary>
    private IEnumerable<Task> Adopt(List<IWorker> workers, HashSet<string> held, HashSet<string> ending)
    {
        string id = workers[0].VmId;
        if (_vms.Values.FirstOrDefault(v => string.Equals(v.Record.Id, id, StringComparison.Ordinal)) is not { } vm)
        {
            return workers.Select(worker => WorkerAdoption.EndStrangerAsync(worker, log, _ending.Token));
        }

        (IWorker? worker, IReadOnlyList<IWorker> others) = WorkerChoice.Of(vm.Record.Move, workers);
        if (worker is null)
        {
            ending.Add(id);
            return [vm.Upgrades.EndAllAsync(others, _ending.Token)];
        }

        held.Add(id);
        return [WorkerAdoption.AdoptAsync(vm, worker, others, log, _ending.Token)];
    }

    /// <summary>
    /// Starts what is to run from the boot of the host on. Called once after it; one that does not start says so, is started again by its
    /// policy, and keeps neither the others nor the daemon from starting.
    /// </summary>
    public async Task AutostartAsync(CancellationToken cancellation)
    {
        // A few at a time: one that takes minutes does not keep the others waiting.
        ParallelOptions few = new() { MaxDegreeOfParallelism = 4 };
        await Parallel.ForEachAsync(_vms.Values.Where(v => v.StartsByItself).ToList(), few,
            async (vm, _) => await vm.AutostartAsync(cancellation).ConfigureAwait(false)).ConfigureAwait(false);
    }

    /// <summary>Figures of the worker pool.</summary>
    internal WorkerFigures Workers => launcher.Figures;

    /// <summary>Every VM.</summary>
    internal ICollection<ManagedVm> All => _vms.Values;

    /// <summary>All VMs, by name.</summary>
    public VmList List() => new([.. _vms.Values.Select(v => v.Info).OrderBy(v => v.Name, StringComparer.Ordinal)]);

    /// <summary>One VM.</summary>
    /// <exception cref="ApiException">There is none of this name.</exception>
    public ManagedVm Get(string name) => _vms.TryGetValue(name, out ManagedVm? vm)
        ? vm
        : throw new ApiException(
            404, "vm-not-found", "no such VM", $"{name}: there is no VM of this name; 'vmmctl vm list' shows those there are");

    /// <summary>Finds the VM that is saved in a folder.</summary>
    /// <returns>The VM, and the folder, which is the caller's.</returns>
    /// <exception cref="ApiException">There is no saved VM, or this host does not know it.</exception>
    internal (ManagedVm Vm, SavedVmFolder Folder) GetSaved(string path) => SavedVmFolder.Find(storage, path, Get);

    /// <summary>VMs whose spec names the file; one whose spec cannot be read counts when its text has the name.</summary>
    internal IReadOnlyList<string> UsersOf(string path) =>
        [.. _vms.Values.Where(v => v.Devices.Uses(path)).Select(v => v.Record.Name).Order(StringComparer.Ordinal)];

    /// <summary>VMs with a disk that is this file, or has it below.</summary>
    internal IReadOnlyList<string> WithInChain(string path) => OthersOver(path, except: "");

    // A file of a chain that changes below somebody else's image changes that one's disk.
    private IReadOnlyList<string> OthersOver(string path, string except) =>
    [
        .. _vms.Values.Where(vm => !string.Equals(vm.Record.Name, except, StringComparison.Ordinal) && vm.DiskFiles.HasInChain(path))
            .Select(vm => vm.Record.Name).Order(StringComparer.Ordinal),
    ];

    /// <summary>The VM whose worker a process is; null: it is none's.</summary>
    internal string? NameOf(int workerProcess) => _vms.Values.FirstOrDefault(vm => vm.WorkerProcess == workerProcess)?.Record.Name;

    /// <summary>Tells what somebody may want to know of a VM's disk or network.</summary>
    internal void Remark(string vmId, string remark, string kind = "disk-remark")
    {
        if (_vms.Values.FirstOrDefault(vm => string.Equals(vm.Record.Id, vmId, StringComparison.Ordinal))?.Record.Name is { } name)
        {
            Events.Publish(kind, name, message: remark);
            DaemonLog.DiskRemark(log, name, remark);
        }
    }

    /// <summary>
    /// Creates a VM. The same name with the same spec is answered with the VM that is there, so a create may be repeated.
    /// </summary>
    /// <returns>The VM, and whether it is new.</returns>
    /// <exception cref="ApiException">The spec is not sound, or the name is taken.</exception>
    public async Task<(VmInfo Vm, bool Created)> CreateAsync(string yaml, string folder, CancellationToken cancellation)
    {
        VmSpec spec = SpecFileCheck.Read(yaml, folder, cancellation);
        using IDisposable held = Disks.Name(spec.Disks);
        SpecFileCheck.Require(storage, spec);
        ImageDiskPlan? over = ImageDisks?.Plan(yaml, folder, spec);
        using IDisposable? below = over is null ? null : Disks.Name(over.Images);
        (yaml, spec) = over is null ? (yaml, spec) : (over.Text, over.Spec);
        await _changes.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            if (_vms.TryGetValue(spec.Name, out ManagedVm? present))
            {
                return string.Equals(present.Record.Spec, yaml, StringComparison.Ordinal)
                    && string.Equals(present.Record.Folder, folder, StringComparison.Ordinal)
                    ? (present.Info, false)
                    : throw new ApiException(409, "name-taken", "the name is taken",
                        $"{spec.Name}: there is a VM of this name with another spec: delete it, or change it with 'vmmctl vm edit'");
            }

            CheckVsock(spec, vm => true);
            VmRecord record = new(Guid.NewGuid().ToString(), spec.Name, yaml, folder, 1, WantedOn: false, LastExit: null);
            ManagedVm vm = await Nets.ReserveAsync(
                spec, () => _vms.ContainsKey(spec.Name) ? spec : null,
                () => Task.FromResult(_vms[spec.Name] = Managed(NewVms.Store(inventory, record, over is null ? null : over.Make))))
                .ConfigureAwait(false);
            Events.Publish("created", spec.Name);
            return (vm.Info, true);
        }
        finally
        {
            _changes.Release();
        }
    }

    /// <summary>Replaces the spec of a VM that does not run.</summary>
    /// <exception cref="ApiException">The spec is not sound, names another VM, or the VM runs or was changed meanwhile.</exception>
    public async Task<VmInfo> ReplaceAsync(string name, string yaml, string folder, long? revision, CancellationToken cancellation)
    {
        ManagedVm vm = Get(name);
        folder = folder.Length > 0 ? folder : vm.Record.Folder;
        VmSpec spec = SpecFileCheck.Read(yaml, folder, cancellation);
        using IDisposable held = Disks.Name(spec.Disks);
        SpecFileCheck.RefuseImages(spec);
        SpecFileCheck.Require(storage, spec);
        if (!string.Equals(spec.Name, name, StringComparison.Ordinal))
        {
            throw new ApiException(422, "name-differs", "the spec names another VM",
                $"the spec says name: {spec.Name}, but it was sent for {name}: VMs are not renamed");
        }

        if (spec.Vsock is null)
        {
            return await ReplaceAsync(vm, yaml, folder, spec, revision, cancellation).ConfigureAwait(false);
        }

        await _changes.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            CheckVsock(spec, vm => true);
            return await ReplaceAsync(vm, yaml, folder, spec, revision, cancellation).ConfigureAwait(false);
        }
        finally
        {
            _changes.Release();
        }
    }

    private Task<VmInfo> ReplaceAsync(
        ManagedVm vm, string yaml, string folder, VmSpec spec, long? revision, CancellationToken cancellation) =>
        Nets.ReserveAsync(spec, () => vm.Spec ?? spec, () => vm.ReplaceAsync(yaml, folder, spec, revision, cancellation));

    /// <summary>Adds a disk to a VM.</summary>
    /// <exception cref="ApiException">It cannot be added.</exception>
    internal async Task<DeviceInfo> AttachAsync(string name, DiskSpec disk, bool stay, long? revision, CancellationToken cancellation)
    {
        using IDisposable held = Disks.Name([disk]);
        VmSpec alone = new() { Disks = [disk] };
        SpecFileCheck.RefuseImages(alone, "disks[0].");
        SpecFileCheck.Require(storage, alone, "disks[0].");
        return await Get(name).Devices.AttachAsync(disk, stay, revision, cancellation).ConfigureAwait(false);
    }

    /// <summary>Forgets a VM that does not run.</summary>
    /// <exception cref="ApiException">It runs, was changed meanwhile, or is not there.</exception>
    public async Task RemoveAsync(string name, long? revision, CancellationToken cancellation)
    {
        ManagedVm vm = Get(name);
        await _changes.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            await vm.RemoveAsync(revision, () => TakeFolder(name), cancellation).ConfigureAwait(false);
            _vms.TryRemove(name, out _);
            await Nets.ForgetAsync(name).ConfigureAwait(false);
        }
        finally
        {
            _changes.Release();
        }

        vm.Dispose();
    }

    /// <summary>
    /// Takes a VM in that comes with its id: of another host, not to run by itself until its move is over, or of a recovery point.
    /// </summary>
    /// <param name="record">Its record.</param>
    /// <param name="spec">What it has.</param>
    /// <param name="make">Makes its disks; null: they are there.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="ApiException">Its name is taken, or it has no room here.</exception>
    internal async Task<ManagedVm> AddAsync(
        VmRecord record, VmSpec spec, Func<VmFolderChange>? make, CancellationToken cancellation)
    {
        await _changes.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            if (_vms.ContainsKey(record.Name) || _vms.Values.Any(vm => string.Equals(vm.Record.Id, record.Id, StringComparison.Ordinal)))
            {
                throw new ApiException(
                    409, "name-taken", "the name is taken", $"{record.Name}: there is a VM of this name, or with its id");
            }

            CheckVsock(spec, vm => true);
            using IDisposable? admitted = record.Move is null ? null : Admit(spec);
            return await Nets.ReserveAsync(spec, () => _vms.ContainsKey(spec.Name) ? spec : null,
                () => Task.FromResult(_vms[record.Name] = Managed(NewVms.Store(inventory, record, make)))).ConfigureAwait(false);
        }
        finally
        {
            _changes.Release();
        }
    }

    /// <summary>A VM is another host's: nothing of it stays here but what both have.</summary>
    internal async Task LeaveAsync(ManagedVm vm, string kind, string message)
    {
        await _changes.WaitAsync(CancellationToken.None).ConfigureAwait(false);
        try
        {
            vm.Leave(kind, message);
            _vms.TryRemove(vm.Record.Name, out _);
            await Nets.ForgetAsync(vm.Record.Name).ConfigureAwait(false);
        }
        finally
        {
            _changes.Release();
        }

        vm.Dispose();
    }

    /// <summary>Lets go of all workers; the VMs go on. Nothing may ask for one any more.</summary>
    public Task StopAsync(CancellationToken cancellationToken)
    {
        Dispose();
        return Task.CompletedTask;
    }

    /// <summary>As <see cref="StopAsync"/>, for one that was never started or stopped.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _ended, true))
        {
            return;
        }

        _ending.Cancel();
        foreach (ManagedVm vm in _vms.Values)
        {
            vm.Dispose();
        }

        _changes.Dispose();
        _ending.Dispose();
    }

    // What a VM owns goes with it; another VM may have come to stand on it.
    private VmFolderChange? TakeFolder(string name)
    {
        foreach (string file in ImageDisks?.Folders.FilesOf(name) ?? [])
        {
            if (OthersOver(file, name) is { Count: > 0 } others)
            {
                throw new ApiException(409, "disk-in-use", "a disk of the VM is in use",
                    $"{file} goes with {name}, and {string.Join(", ", others)} has it or a disk over it: free that first "
                        + "(vmmctl vm stream)");
            }
        }

        return ImageDisks?.Folders.BeginRemoval(name);
    }

    private ManagedVm Managed(VmRecord record)
    {
        ManagedVm vm = new(record, inventory, launcher, Events, log, storage, Admit, AdmitTwice, OthersOver, Seeds)
        {
            AddressesOf = Nets.AddressesOf,
        };
        vm.Migrations.Connect(
            Peers, name => ImageDisks?.Folders.FilesOf(name) ?? [], (kind, message) => LeaveAsync(vm, kind, message), _ending.Token);
        return vm;
    }

    /// <summary>Looks whether a VM can run beside the others; what it is promised is kept until the answer is disposed.</summary>
    /// <exception cref="ApiException">It cannot.</exception>
    private IDisposable Admit(VmSpec spec)
    {
        CheckVsock(spec, vm => vm.IsAlive);
        return Promises.Admit(spec, Running);
    }

    /// <summary>Looks whether there is memory for a second worker of a VM that runs; kept until the answer is disposed.</summary>
    /// <exception cref="ApiException">There is none.</exception>
    private IDisposable AdmitTwice(VmSpec spec) =>
        Promises.Admit(spec with { Name = spec.Name + " (for the time of its move, a second time)" }, Running);

    /// <summary>The specs of VMs that run, or are about to.</summary>
    private IEnumerable<VmSpec> Running => _vms.Values.Where(vm => vm.IsAlive).Select(vm => vm.Spec).OfType<VmSpec>();

    /// <summary>What VMs that run are promised of the host's memory, and the most that may be; null: that is not known.</summary>
    internal (ulong Promised, ulong? Limit) PromisedMemory => (MemoryPromises.Sum(Running), Promises.Limit);

    private void CheckVsock(VmSpec spec, Func<ManagedVm, bool> counts) => VsockPaths.Require(spec, _vms.Values.Where(counts));
}
