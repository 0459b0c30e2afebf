using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>
/// What a worker reports unasked: of its guest, of disks that fail, of its connection. A worker that was taken over may repeat it without
/// end.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="devices">Knows the files of its disks, and hears of devices that are gone.</param>
internal sealed class WorkerReports(VmSupervisor vm, VmDevices devices) : IRunObserver
{
    private readonly HashSet<GuestEvent> _seen = []; // of this run; also the lock

    public void RunBegan(IWorker worker)
    {
        lock (_seen)
        {
            _seen.Clear();
        }

        worker.OnGuestEvent(happened => OnGuestEvent(worker, happened));
        worker.OnDiskError(fault => OnDiskError(worker, fault));
        worker.OnDeviceRemoved(devices.OnRemoved);
        worker.OnConnection(connected => OnConnection(worker, connected));
    }

    public void RunEnded()
    {
    }

    /// <summary>
    /// The host fails requests of a disk. Disk and file are those that this daemon gave it: a name that is not among them is not told of.
    /// </summary>
    private void OnDiskError(IWorker worker, DiskErrorBody fault)
    {
        if (!vm.IsCurrent(worker) || devices.FileOf(fault.Disk) is not { } file)
        {
            return;
        }

        string problem = fault.Fault == DiskFault.NoSpace ? "no space left on the host's file system" : "I/O errors of the host";
        vm.Events.Publish("disk-error", vm.Name, message: $"{fault.Disk} ({file}): {problem}; the guest gets I/O errors");
        DaemonLog.DiskFails(vm.Log, vm.Name, fault.Disk, file, problem);
    }

    private void OnGuestEvent(IWorker worker, GuestEvent happened)
    {
        if (happened is not (GuestEvent.Panicked or GuestEvent.CrashKernel) || !vm.IsCurrent(worker))
        {
            return;
        }

        lock (_seen)
        {
            if (!_seen.Add(happened))
            {
                return;
            }
        }

        bool preserved = happened == GuestEvent.Panicked && vm.Store.Spec is { OnCrash: CrashPolicy.Preserve };
        string follows = (happened, preserved) switch
        {
            (GuestEvent.CrashKernel, _) => "its crash kernel takes over",
            (_, true) => "it stays as it is until it is stopped (onCrash: preserve)",
            (_, false) => "it ends",
        };
        vm.Events.Publish(happened == GuestEvent.Panicked ? "guest-panicked" : "guest-crash-kernel", vm.Name, message: follows);
        DaemonLog.GuestPanicked(vm.Log, vm.Name, follows);
        if (preserved)
        {
            vm.MarkCrashed(worker);
        }
    }

    /// <summary>What the worker told while there was no connection is lost: what matters is learnt anew.</summary>
    private void OnConnection(IWorker worker, bool connected)
    {
        if (connected)
        {
            DaemonLog.Reconnected(vm.Log, vm.Name, worker.ProcessId);
            vm.Events.Publish("worker-back", vm.Name);
            _ = Task.Run(() => devices.LearnAsync(worker, CancellationToken.None));
        }
        else
        {
            DaemonLog.ConnectionLost(vm.Log, vm.Name, worker.ProcessId);
            vm.Events.Publish(
                "worker-lost", vm.Name, message: "the connection to its worker is lost; the VM goes on, the connection is made again");
        }
    }
}
