using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Workers;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <content>
/// Disks and network devices: those of the stored spec, and those of the running VM. A change that is to stay goes into the stored spec right after the
/// running VM has it; a daemon that dies in between leaves a device that says it is not stored.
/// </content>
public sealed partial class ManagedVm
{
    /// <summary>Devices that leave the stored spec when the guest lets go of them, by name in the running VM. Under the gate.</summary>
    private readonly Dictionary<string, DeviceInfo> _leaving = new(StringComparer.Ordinal);

    /// <summary>Disks that the running VM has and the stored spec has not: name and file. Under the gate.</summary>
    private readonly Dictionary<string, string> _unstored = new(StringComparer.Ordinal);

    /// <summary>Files of the disks of this run. Under the gate.</summary>
    private readonly RunningDisks _disks = new();

    /// <summary>Taps that were plugged into the running VM. Under the gate.</summary>
    private readonly HashSet<string> _plugged = new(StringComparer.Ordinal);

    /// <summary>Taps that the VM has, or had in this run.</summary>
    private HashSet<string> OwnTaps()
    {
        lock (_gate)
        {
            return [.. _plugged, .. _spec?.Nets.Select(net => net.Tap) ?? []];
        }
    }

    /// <summary>What is plugged now; what the next start will plug when the VM does not run.</summary>
    internal async Task<DeviceList> DevicesAsync(CancellationToken cancellation)
    {
        (IWorker? worker, VmSpec? spec) = Now();
        if (worker is null)
        {
            return new DeviceList(spec is null ? [] : Stored(spec));
        }

        DeviceList plugged = await Call(() => worker.DevicesAsync(cancellation)).ConfigureAwait(false);
        return new DeviceList([.. plugged.Devices.Select(device => device with { Stored = spec is not null && IndexOf(spec, device) >= 0 })]);
    }

    /// <summary>Adds a disk: to the running VM, and to the stored spec when it shall stay.</summary>
    /// <exception cref="ApiException">It is not sound, cannot be opened or plugged, or the spec cannot be changed.</exception>
    internal Task<DeviceInfo> AttachAsync(DiskSpec disk, bool stay, long? revision, CancellationToken cancellation) => AttachAsync(
        new DeviceInfo("", "disk", disk.Path, null, disk.ReadOnly, Removing: false, stay, disk.Vnode),
        spec => spec with { Disks = [.. spec.Disks, disk] },
        (text, folder) => SpecEdit.Add(text, folder, disk),
        worker => worker.AddDiskAsync(disk, cancellation),
        revision,
        cancellation);

    /// <summary>Adds a network device: to the running VM, and to the stored spec when it shall stay.</summary>
    /// <exception cref="ApiException">It is not sound, cannot be opened or plugged, or the spec cannot be changed.</exception>
    internal Task<DeviceInfo> AttachAsync(NetSpec net, bool stay, long? revision, CancellationToken cancellation) => AttachAsync(
        new DeviceInfo("", "net", net.Tap, null, ReadOnly: false, Removing: false, stay, net.Vnode),
        spec => spec with { Nets = [.. spec.Nets, net] },
        (text, folder) => SpecEdit.Add(text, folder, net),
        worker => worker.AddNetAsync(net, cancellation),
        revision,
        cancellation);

    /// <summary>
    /// Removes a device from the running VM when the guest lets go of it in time (or by force after that), and from the stored spec when it shall not come
    /// back. The guest's time does not keep other commands from being carried out.
    /// </summary>
    /// <exception cref="ApiException">There is none of this name, the guest did not let go of it, or the spec cannot be changed.</exception>
    internal async Task<RemovalBody> DetachAsync(string device, TimeSpan patience, bool force, bool forGood, CancellationToken cancellation)
    {
        (IWorker? worker, _) = Now();
        if (worker is null)
        {
            await InTurn(() => Forget(device, Single(Stored(SoundSpec()), device)), cancellation).ConfigureAwait(false);
            return new RemovalBody(device, DeviceRemoval.Removed);
        }

        DeviceInfo plugged = Single((await DevicesAsync(cancellation).ConfigureAwait(false)).Devices, device);
        bool leaves = forGood && plugged.Stored;
        if (leaves)
        {
            _ = Without(plugged); // a spec that cannot be changed is an error now, not when the guest has let go
        }

        lock (_gate)
        {
            if (leaves)
            {
                _leaving[device] = plugged;
            }
            else
            {
                _leaving.Remove(device);
            }
        }

        DeviceRemoval outcome = await Call(() => worker.RemoveDeviceAsync(device, patience, force, cancellation)).ConfigureAwait(false);
        if (outcome == DeviceRemoval.Refused)
        {
            throw new ApiException(409, "device-held", "the guest has not let go of the device",
                $"{Record.Name}: the guest did not let go of {device} in {patience.TotalSeconds:0} s; it works on, and is removed when the guest lets go of it later; with force it is taken");
        }

        await GoneAsync(device).ConfigureAwait(false);
        return new RemovalBody(device, outcome);
    }

    private async Task<DeviceInfo> AttachAsync(
        DeviceInfo device, Func<VmSpec, VmSpec> change, Func<string, string?, string?> edit, Func<IWorker, Task<DeviceInfo>> plug, long? revision, CancellationToken cancellation)
    {
        DeviceInfo added = device;
        await InTurn(async () =>
        {
            IWorker? worker;
            lock (_gate)
            {
                CheckRevision(revision);
                worker = _worker;
                if (worker is null ? HasOrGetsWorker : _state is not (VmState.Running or VmState.Paused))
                {
                    throw WrongState("gets no device now: wait until it runs or is stopped");
                }
            }

            if (worker is null && !device.Stored)
            {
                throw WrongState("has nothing that a device could be plugged into for the time it runs: start it, or let the device stay");
            }

            (string Text, VmSpec Spec)? stored = device.Stored ? Edited(edit, change) : null;
            if (worker is not null)
            {
                // Name and place are the worker's; what it is, we know.
                DeviceInfo plugged = await Call(() => plug(worker)).ConfigureAwait(false);
                added = device with { Name = plugged.Name, Slot = plugged.Slot };
                lock (_gate)
                {
                    if (device.Kind is "net")
                    {
                        _plugged.Add(device.Source);
                    }
                    else
                    {
                        _disks.Add(added.Name, device.Source);
                    }
                }
            }

            lock (_gate)
            {
                if (stored is { } next)
                {
                    Save(_record with { Spec = next.Text, Revision = _record.Revision + 1 });
                    _spec = next.Spec;
                }
                else if (device.Kind is "disk")
                {
                    _unstored[added.Name] = device.Source;
                }
            }
        }, cancellation).ConfigureAwait(false);
        if (added.Name.Length == 0)
        {
            DeviceInfo[] all = [.. Stored(SoundSpec()).Where(d => string.Equals(d.Kind, device.Kind, StringComparison.Ordinal))];
            added = all[^1];
        }

        _events.Publish("device-added", _record.Name, message: $"{added.Name}: {added.Source}");
        DaemonLog.DeviceAdded(_log, _record.Name, added.Name, added.Source);
        return added;
    }

    /// <summary>The worker says that a device is gone.</summary>
    private void OnDeviceRemoved(RemovalBody removal)
    {
        lock (_gate)
        {
            _disks.Remove(removal.Device);
        }

        _events.Publish("device-removed", Record.Name, message: removal.Outcome == DeviceRemoval.Forced ? $"{removal.Device} was taken without the guest's consent" : $"the guest let go of {removal.Device}");
        DaemonLog.DeviceRemoved(_log, Record.Name, removal.Device, removal.Outcome);
        _ = Task.Run(async () =>
        {
            try
            {
                await GoneAsync(removal.Device).ConfigureAwait(false);
            }
#pragma warning disable CA1031 // Nobody waits for this change; the device list goes on telling that it is stored, which is the truth.
            catch (Exception e)
#pragma warning restore CA1031
            {
                DaemonLog.DeviceStays(_log, e, Record.Name, removal.Device);
            }
        });
    }

    /// <summary>Takes a device that is gone out of the stored spec, when that was wished. The answer of the worker and its event both come here.</summary>
    private async Task GoneAsync(string device)
    {
        DeviceInfo? leaving;
        lock (_gate)
        {
            _leaving.Remove(device, out leaving);
            _unstored.Remove(device);
        }

        if (leaving is not null)
        {
            await InTurn(() => Forget(device, leaving), CancellationToken.None).ConfigureAwait(false);
        }
    }

    private Task Forget(string name, DeviceInfo device)
    {
        (string text, VmSpec spec) = Without(device);
        lock (_gate)
        {
            Save(_record with { Spec = text, Revision = _record.Revision + 1 });
            _spec = spec;
            _events.Publish("changed", _record.Name, message: $"{name} is not in its spec any more");
        }

        return Task.CompletedTask;
    }

    private (string Text, VmSpec Spec) Without(DeviceInfo device) => Edited(
        (text, folder) => device.Kind is "disk" ? SpecEdit.RemoveDisk(text, folder, IndexOf(SoundSpec(), device)) : SpecEdit.RemoveNet(text, folder, IndexOf(SoundSpec(), device)),
        spec => device.Kind is "disk"
            ? spec with { Disks = [.. spec.Disks.Where((_, i) => i != IndexOf(spec, device))] }
            : spec with { Nets = [.. spec.Nets.Where((_, i) => i != IndexOf(spec, device))] });

    private (string Text, VmSpec Spec) Edited(Func<string, string?, string?> edit, Func<VmSpec, VmSpec> change)
    {
        VmRecord record = Record;
        try
        {
            string text = edit(record.Spec, record.Folder.Length > 0 ? record.Folder : null)
                ?? throw new ApiException(409, "spec-not-editable", "the stored spec cannot be changed by a program",
                    $"{record.Name}: its spec is written in a way that cannot be changed without touching the rest of it: use 'vmmctl vm edit {record.Name}' while it is off, or change the running VM only (--temporary)");
            return (text, change(SoundSpec()));
        }
        catch (SpecException e)
        {
            throw ApiException.OfSpec(e);
        }
    }

    private (IWorker? Worker, VmSpec? Spec) Now()
    {
        lock (_gate)
        {
            return (_worker, _spec);
        }
    }

    private VmSpec SoundSpec() => Now().Spec ?? throw ApiException.OfSpec(_specProblem!);

    private DeviceInfo Single(IReadOnlyList<DeviceInfo> devices, string name) => devices.FirstOrDefault(d => string.Equals(d.Name, name, StringComparison.Ordinal))
        ?? throw new ApiException(404, "device-not-found", "no such device", $"{Record.Name} has no disk or network device {name}; 'vmmctl vm devices {Record.Name}' shows those it has");

    private static List<DeviceInfo> Stored(VmSpec spec) =>
    [
        .. spec.Disks.Select((disk, i) => new DeviceInfo($"disk{i}", "disk", disk.Path, null, disk.ReadOnly, Removing: false, Stored: true, disk.Vnode)),
        .. spec.Nets.Select((net, i) => new DeviceInfo($"net{i}", "net", net.Tap, null, ReadOnly: false, Removing: false, Stored: true, net.Vnode)),
    ];

    /// <summary>Where a device is in its list of the spec; -1: nowhere. Names count per run, files and taps are the same thing in both.</summary>
    private static int IndexOf(VmSpec spec, DeviceInfo device)
    {
        List<string> sources = device.Kind is "disk" ? [.. spec.Disks.Select(d => d.Path)] : [.. spec.Nets.Select(n => n.Tap)];
        return sources.FindIndex(source => string.Equals(source, device.Source, StringComparison.Ordinal));
    }

    /// <summary>A disk that the spec does not name and the worker may really have open: what a worker says is checked. Under the gate.</summary>
    private bool IsUnstoredDisk(IWorker worker, DeviceInfo device) =>
        device.Kind is "disk" && (_spec is null || IndexOf(_spec, device) < 0) && OpenFiles.MayHold(worker.ProcessId, device.Source);

    /// <summary>What an adopted worker has plugged that the spec does not know: its files are in use.</summary>
    private async Task LearnDevicesAsync(IWorker worker, CancellationToken cancellation)
    {
        try
        {
            DeviceList plugged = await worker.DevicesAsync(cancellation).ConfigureAwait(false);
            lock (_gate)
            {
                if (ReferenceEquals(_worker, worker))
                {
                    _disks.Learn(plugged, disk => (_spec is not null && IndexOf(_spec, disk) >= 0) || OpenFiles.MayHold(worker.ProcessId, disk.Source));
                    _unstored.Clear();
                    foreach (DeviceInfo disk in plugged.Devices.Where(d => IsUnstoredDisk(worker, d)))
                    {
                        _unstored[disk.Name] = disk.Source;
                    }
                }
            }
        }
        catch (WorkerException e)
        {
            DaemonLog.DevicesUnknown(_log, _record.Name, e.Message);
        }
    }
}
