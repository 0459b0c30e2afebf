using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Vms;

/// <summary>
/// Disks for which a VM is paused: the host failed their requests, which are kept. A worker that was taken over may say so without end:
/// what counts is that its VM is paused.
/// </summary>
internal sealed class VmDiskStalls : IRunObserver
{
    private readonly VmSupervisor _vm;
    private readonly VmDevices _devices;
    private readonly SortedDictionary<string, DiskFault> _waiting = new(StringComparer.Ordinal); // of this run; also the lock

    private IDisposable? _states;

    /// <param name="vm">The VM.</param>
    /// <param name="devices">Knows the files of its disks.</param>
    internal VmDiskStalls(VmSupervisor vm, VmDevices devices)
    {
        (_vm, _devices) = (vm, devices);
        devices.Learnt = Learn;
    }

    /// <summary>Which disks it waits for, and why, for people; null: for none.</summary>
    /// <param name="state">Where it stands: one that goes on waits for nothing.</param>
    internal string? WaitsFor(VmState state)
    {
        lock (_waiting)
        {
            return state is not VmState.Paused || _waiting.Count == 0 ? null
                : string.Join("; ", _waiting.Select(disk => $"{disk.Key} ({_devices.FileOf(disk.Key) ?? "-"}): {Problem(disk.Value)}"));
        }
    }

    public void RunBegan(IWorker worker)
    {
        RunEnded(); // one that moved: the worker before has nothing more to say
        worker.OnDiskStall(stall => OnStall(worker, stall));
        _states = worker.OnStateChanged(state =>
        {
            if (state == VmState.Running)
            {
                Forget(); // what it waits for from now on is told anew
            }
        });
    }

    public void RunEnded()
    {
        _states?.Dispose();
        _states = null;
        Forget();
    }

    private void Forget()
    {
        lock (_waiting)
        {
            _waiting.Clear();
        }
    }

    private void OnStall(IWorker worker, DiskStallBody stall)
    {
        if (!_vm.IsCurrent(worker) || _devices.FileOf(stall.Disk) is not { } file)
        {
            return;
        }

        lock (_waiting)
        {
            if (stall.Waits)
            {
                _waiting[stall.Disk] = stall.Fault;
            }
            else
            {
                _waiting.Remove(stall.Disk);
            }
        }

        Follow(worker);
        string what = stall.Waits ? $"{Problem(stall.Fault)}; the VM is paused, and its requests are kept" : "there is space again";
        _vm.Events.Publish(stall.Waits ? "disk-waits" : "disk-goes-on", _vm.Name, message: $"{stall.Disk} ({file}): {what}");
        DaemonLog.DiskWaits(_vm.Log, _vm.Name, stall.Disk, file, what);
    }

    /// <summary>What was told while no daemon was connected is lost.</summary>
    private void Learn(IWorker worker, DeviceList plugged)
    {
        lock (_waiting)
        {
            _waiting.Clear();
            foreach (DeviceInfo disk in plugged.Devices)
            {
                if (disk.Waits is { } fault)
                {
                    _waiting[disk.Name] = fault;
                }
            }
        }

        Follow(worker);
    }

    // The worker's own pauses and resumes are the VM's.
    private void Follow(IWorker worker)
    {
        if (worker.State == VmState.Paused)
        {
            _vm.MoveIfPossible(VmEvent.Paused, () => worker.State == VmState.Paused);
        }
        else if (worker.State == VmState.Running)
        {
            _vm.MoveIfPossible(VmEvent.Resumed, () => worker.State == VmState.Running);
        }
    }

    private static string Problem(DiskFault fault) =>
        fault == DiskFault.NoSpace ? "no space left on the host's file system" : "I/O errors of the host";
}
