using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.Spec;
using static Vmm.Daemon.Vms.WorkerCalls;

namespace Vmm.Daemon.Vms;

/// <summary>
/// Disks and network devices: those of the stored spec, and those of the running VM. A change that is to stay goes into the stored spec
/// right after the running VM has it; a daemon that dies in between leaves a device that says it is not stored.
/// </summary>
internal sealed class VmDevices(VmSupervisor vm) : IRunObserver
{
    private readonly RunDevices _run = new();

    /// <summary>Hears what a worker that was found, or came back, has plugged.</summary>
    internal Action<IWorker, DeviceList>? Learnt { get; set; }

    public void RunBegan(IWorker worker) => _run.Begin(vm.Store.Spec);

    public void RunMoved(IWorker worker)
    {
        // The guest has the devices that it had.
    }

    public void RunEnded() => _run.Clear();

    /// <summary>Taps that the VM has, or had in this run.</summary>
    internal HashSet<string> OwnTaps() => [.. _run.Taps, .. vm.Store.Spec?.Nets.Select(net => net.Source) ?? []];

    /// <summary>The file of a disk of this run; null: it has none of that name.</summary>
    internal string? FileOf(string disk) => _run.FileOf(disk);

    /// <summary>The disks of this run, as this daemon knows them.</summary>
    internal IReadOnlyList<(string Disk, DiskSpec Spec)> Disks()
    {
        List<(string Disk, DiskSpec Spec)> found = [];
        foreach ((string disk, string file) in _run.DiskFiles())
        {
            DiskSpec? spec = vm.Store.Spec?.Disks.FirstOrDefault(d => string.Equals(d.Path, file, StringComparison.Ordinal))
                ?? _run.PartOf(new DeviceInfo(disk, "disk", file, null, ReadOnly: false, Removing: false, Stored: false))?.Disks[0];
            found.Add((disk, spec ?? new DiskSpec { Path = file }));
        }

        return found;
    }

    /// <summary>What a disk is, as this daemon knows it.</summary>
    /// <param name="device">Its name.</param>
    /// <param name="running">Names are those of this run; otherwise those of the next one.</param>
    /// <exception cref="ApiException">There is no disk of this name.</exception>
    internal DiskSpec DiskOf(string device, bool running)
    {
        VmSpec stored = vm.Store.RequireSpec();
        string? path = running ? _run.FileOf(device) : SpecDevices.List(stored).Find(
            d => d.Kind is "disk" && string.Equals(d.Name, device, StringComparison.Ordinal))?.Source;
        return path is null
            ? throw Missing(device)
            : stored.Disks.FirstOrDefault(d => string.Equals(d.Path, path, StringComparison.Ordinal))
                ?? _run.PartOf(new DeviceInfo(device, "disk", path, null, ReadOnly: false, Removing: false, Stored: false))?.Disks[0]
                ?? new DiskSpec { Path = path };
    }

    /// <summary>A disk of this run is in another file from now on.</summary>
    internal void Moved(string disk, string file) => _run.MoveDisk(disk, file);

    /// <summary>Whether the spec names the file, or the running VM has it plugged.</summary>
    internal bool Uses(string path) => vm.Store.Spec is { } spec
        ? _run.HasUnstored(path) || string.Equals(vm.Store.Record.Copy?.Target, path, StringComparison.Ordinal)
            || string.Equals(vm.Store.Record.Commit?.Base, path, StringComparison.Ordinal)
            || string.Equals(vm.Store.Record.Commit?.Source, path, StringComparison.Ordinal)
            || vm.Store.Record.Snapshot?.Disks.Any(d => string.Equals(d.Source, path, StringComparison.Ordinal)) == true
            || spec.Disks.Any(d => string.Equals(Path.GetFullPath(d.Path, "/"), path, StringComparison.Ordinal))
        : vm.Store.Record.Spec.Contains(Path.GetFileName(path), StringComparison.Ordinal);

    /// <summary>Whether the spec names the network, or the running VM has had a device of it plugged in.</summary>
    internal bool UsesNetwork(string network) => vm.Store.Spec is not { } spec
        ? vm.Store.Record.Spec.Contains(network, StringComparison.Ordinal)
        : spec.Nets.Any(net => string.Equals(net.Network, network, StringComparison.Ordinal))
            || _run.Taps.Any(tap => (tap + '/').StartsWith($"network:{network}/", StringComparison.Ordinal));

    /// <summary>Network devices of the stored spec, and behind them those that were plugged into the running VM.</summary>
    internal IReadOnlyList<NetSpec> KnownNets()
    {
        List<NetSpec> known = [.. vm.Store.Spec?.Nets ?? []];
        known.AddRange(_run.Nets.Where(net => !known.Any(k => string.Equals(k.Source, net.Source, StringComparison.Ordinal))));
        return known;
    }

    /// <summary>What is plugged now; what the next start will plug when the VM does not run.</summary>
    /// <exception cref="ApiException">The worker does not answer.</exception>
    internal async Task<DeviceList> ListAsync(CancellationToken cancellation)
    {
        (IWorker? worker, VmSpec? spec) = (vm.Worker, vm.Store.Spec);
        if (worker is null)
        {
            return new DeviceList(spec is null ? [] : SpecDevices.List(spec));
        }

        DeviceList plugged = await CallAsync(() => worker.DevicesAsync(cancellation)).ConfigureAwait(false);
        return new DeviceList(
            [.. plugged.Devices.Select(device => device with { Stored = spec is not null && SpecDevices.IndexOf(spec, device) >= 0 })]);
    }

    /// <summary>Adds a disk: to the running VM, and to the stored spec when it shall stay.</summary>
    /// <exception cref="ApiException">It is not sound, cannot be opened or plugged, or the spec cannot be changed.</exception>
    internal Task<DeviceInfo> AttachAsync(DiskSpec disk, bool stay, long? revision, CancellationToken cancellation) => AttachAsync(
        new Addition(
            new DeviceInfo("", "disk", disk.Path, null, disk.ReadOnly, Removing: false, stay, disk.Vnode),
            spec => spec with { Disks = [.. spec.Disks, disk] },
            (text, folder) => SpecEdit.Add(text, folder, disk),
            worker => worker.AddDiskAsync(disk, cancellation)),
        revision,
        cancellation);

    /// <summary>Adds a network device: to the running VM, and to the stored spec when it shall stay.</summary>
    /// <exception cref="ApiException">It is not sound, cannot be opened or plugged, or the spec cannot be changed.</exception>
    internal Task<DeviceInfo> AttachAsync(NetSpec net, bool stay, long? revision, CancellationToken cancellation) => AttachAsync(
        new Addition(
            new DeviceInfo("", "net", net.Source, null, ReadOnly: false, Removing: false, stay, net.Vnode),
            spec => spec with { Nets = [.. spec.Nets, net] },
            (text, folder) => SpecEdit.Add(text, folder, net),
            worker => worker.AddNetAsync(PagingValidation.Paged(vm.Store.RequireSpec(), net), cancellation)),
        revision,
        cancellation);

    /// <summary>
    /// Removes a device from the running VM when the guest lets go of it in time (or by force after that), and from the stored spec when it
    /// shall not come back. The guest's time does not keep other commands from being carried out.
    /// </summary>
    /// <exception cref="ApiException">There is none of this name, the guest did not let go of it, or the spec cannot be
    /// changed.</exception>
    internal async Task<RemovalBody> DetachAsync(string device, TimeSpan patience, bool force, bool forGood, CancellationToken cancellation)
    {
        vm.Operations.ThrowIfLeaving(vm.Name);
        if (string.Equals(vm.Store.Record.Copy?.Disk ?? vm.Store.Record.Commit?.Disk, device, StringComparison.Ordinal))
        {
            VmDiskCopies.ThrowIfCopying(vm);
        }

        if (vm.Worker is not { } worker)
        {
            ThrowIfSeed(Single(SpecDevices.List(vm.Store.RequireSpec()), device));
            await ForgetAsync(device, () => Single(SpecDevices.List(vm.Store.RequireSpec()), device), cancellation).ConfigureAwait(false);
            return new RemovalBody(device, DeviceRemoval.Removed);
        }

        DeviceInfo plugged = Single((await ListAsync(cancellation).ConfigureAwait(false)).Devices, device);
        bool leavesSpec = forGood && plugged.Stored;
        if (leavesSpec)
        {
            ThrowIfSeed(plugged);
            _ = SpecDevices.Without(vm.Store, plugged); // a spec that cannot be changed is an error now, not when the guest has let go
        }

        _run.BeginRemoval(plugged, leavesSpec);
        DeviceRemoval outcome =
            await CallAsync(() => worker.RemoveDeviceAsync(device, patience, force, cancellation)).ConfigureAwait(false);
        if (outcome == DeviceRemoval.Refused)
        {
            throw new ApiException(409, "device-held", "the guest has not let go of the device",
                $"{vm.Name}: the guest did not let go of {device} in {patience.TotalSeconds:0} s; it works on, and is removed when the "
                    + "guest lets go of it later; with force it is taken");
        }

        await FinishRemovalAsync(device).ConfigureAwait(false);
        return new RemovalBody(device, outcome);
    }

    /// <summary>The worker says that a device is gone.</summary>
    internal void OnRemoved(RemovalBody removal)
    {
        _run.ForgetDisk(removal.Device);
        string how = removal.Outcome == DeviceRemoval.Forced
            ? $"{removal.Device} was taken without the guest's consent"
            : $"the guest let go of {removal.Device}";
        vm.Events.Publish("device-removed", vm.Name, message: how);
        DaemonLog.DeviceRemoved(vm.Log, vm.Name, removal.Device, removal.Outcome);
        _ = Task.Run(async () =>
        {
            try
            {
                await FinishRemovalAsync(removal.Device).ConfigureAwait(false);
            }
#pragma warning disable CA1031 // Nobody waits for this change; the device list goes on telling that it is stored, which is the truth.
            catch (Exception e)
#pragma warning restore CA1031
            {
                DaemonLog.DeviceStays(vm.Log, e, vm.Name, removal.Device);
            }
        });
    }

    /// <summary>
    /// The spec with the devices that are plugged now, in the worker's order, each as this daemon opened it: a worker's word counts for
    /// nothing but which of them there are.
    /// </summary>
    /// <exception cref="ApiException">The worker does not answer, or has a device that this daemon does not know.</exception>
    internal async Task<VmSpec> CurrentSpecAsync(IWorker worker, CancellationToken cancellation)
    {
        VmSpec stored = vm.Store.RequireSpec();
        List<DiskSpec> disks = [];
        List<NetSpec> nets = [];
        foreach (DeviceInfo device in (await CallAsync(() => worker.DevicesAsync(cancellation)).ConfigureAwait(false)).Devices)
        {
            int index = SpecDevices.IndexOf(stored, device);
            VmSpec? part = index < 0 ? _run.PartOf(device) : null;
            if (index < 0 && part is null)
            {
                throw new ApiException(409, "device-unknown", "a device is not known well enough",
                    $"{vm.Name}: {device.Name} ({device.Source}) was plugged in before this vmmd started, and is not in the stored spec: "
                        + "remove it first");
            }

            if (device.Kind is "disk")
            {
                disks.Add(part?.Disks[0] ?? stored.Disks[index]);
            }
            else
            {
                nets.Add(part?.Nets[0] ?? stored.Nets[index]);
            }
        }

        return stored with { Disks = disks, Nets = nets };
    }

    /// <summary>What an adopted worker has plugged that the spec does not know: its files are in use.</summary>
    internal async Task LearnAsync(IWorker worker, CancellationToken cancellation)
    {
        try
        {
            DeviceList plugged = await worker.DevicesAsync(cancellation).ConfigureAwait(false);
            if (vm.IsCurrent(worker))
            {
                _run.Learn(plugged, vm.Store.Spec, worker);
                Learnt?.Invoke(worker, plugged);
            }
        }
        catch (WorkerException e)
        {
            DaemonLog.DevicesUnknown(vm.Log, vm.Name, e.Message);
        }
    }

    private async Task<DeviceInfo> AttachAsync(Addition addition, long? revision, CancellationToken cancellation)
    {
        DeviceInfo added = addition.Device;
        await vm.Operations.RunAsync(
            VmOperation.AttachDevice, vm.Name, async () => added = await AttachInTurnAsync(addition, revision).ConfigureAwait(false),
            cancellation).ConfigureAwait(false);
        if (added.Name.Length == 0)
        {
            added = SpecDevices.List(vm.Store.RequireBareSpec()).Last(d => string.Equals(d.Kind, added.Kind, StringComparison.Ordinal));
        }

        vm.Events.Publish("device-added", vm.Name, message: $"{added.Name}: {added.Source}");
        DaemonLog.DeviceAdded(vm.Log, vm.Name, added.Name, added.Source);
        return added;
    }

    private async Task<DeviceInfo> AttachInTurnAsync(Addition addition, long? revision)
    {
        DeviceInfo device = addition.Device;
        vm.Store.RequireRevision(revision);
        IWorker? worker = vm.RequireWorkerForDevices();
        if (worker is null && !device.Stored)
        {
            throw vm.WrongState("has nothing that a device could be plugged into for the time it runs: start it, or let the device stay");
        }

        (string Text, VmSpec Spec)? stored = device.Stored ? SpecDevices.Edit(vm.Store, addition.Edit, addition.Change) : null;
        if (worker is not null)
        {
            // Name and place are the worker's; what it is, we know.
            DeviceInfo plugged = await CallAsync(() => addition.Plug(worker)).ConfigureAwait(false);
            device = device with { Name = plugged.Name, Slot = plugged.Slot, Bus = plugged.Bus };
            _run.Add(device, addition.Change(new VmSpec()));
        }

        if (stored is { } next)
        {
            vm.Store.WriteSpec(next.Text, next.Spec);
        }
        else if (device.Kind is "disk")
        {
            _run.AddUnstored(device);
        }

        return device;
    }

    /// <summary>
    /// Takes a device that is gone out of the stored spec, when that was asked for. The answer of the worker and its event both come here.
    /// </summary>
    private async Task FinishRemovalAsync(string device)
    {
        if (_run.EndRemoval(device) is { } leaving)
        {
            await ForgetAsync(device, () => leaving, CancellationToken.None).ConfigureAwait(false);
        }
    }

    private Task ForgetAsync(string name, Func<DeviceInfo> device, CancellationToken cancellation) =>
        vm.Operations.RunAsync(VmOperation.ForgetDevice, vm.Name, () =>
        {
            (string text, VmSpec spec) = SpecDevices.Without(vm.Store, device());
            vm.Store.WriteSpec(text, spec);
            vm.Events.Publish("changed", vm.Name, message: $"{name} is not in its spec any more");
            return Task.CompletedTask;
        }, cancellation);

    private void ThrowIfSeed(DeviceInfo device)
    {
        if (device.Kind is "disk" && vm.Store.IsSeed(device.Source))
        {
            throw new ApiException(409, "spec-not-editable", "the device is the VM's seed", $"{vm.Name}: {device.Name} is its seed, and "
                + $"in no spec: 'vmmctl vm seed {vm.Name} --remove' deletes it while the VM is off, --temporary takes it from this run");
        }
    }

    private DeviceInfo Single(IReadOnlyList<DeviceInfo> devices, string name) =>
        devices.FirstOrDefault(d => string.Equals(d.Name, name, StringComparison.Ordinal))
            ?? throw Missing(name);

    private ApiException Missing(string name) => new(404, "device-not-found", "no such device",
        $"{vm.Name} has no disk or network device {name}; 'vmmctl vm devices {vm.Name}' shows those it has");

    /// <summary>A device that is added: what it is, how it changes the spec and the stored text, and how a worker plugs it in.</summary>
    private sealed record Addition(
        DeviceInfo Device, Func<VmSpec, VmSpec> Change, Func<string, string?, string?> Edit, Func<IWorker, Task<DeviceInfo>> Plug);
}
