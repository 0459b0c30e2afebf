using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <content>What a worker tells while its guest runs: of the guest, and of disks that fail.</content>
public sealed partial class ManagedVm
{
    private int _told; // events of this run that were heard, bit by bit: a worker that was taken over may repeat them without end

    /// <summary>A worker holds it, or soon will. Under the lock.</summary>
    private bool HasOrGetsWorker => VmLifeCycle.IsAlive(_state, _worker is not null);

    /// <summary>The host fails requests of a disk. Disk and file are those that this daemon gave it: a name that is not among them is not told of.</summary>
    private void OnDiskError(IWorker worker, DiskErrorBody fault)
    {
        lock (_gate)
        {
            if (!ReferenceEquals(_worker, worker) || _disks.FileOf(fault.Disk) is not { } file)
            {
                return;
            }

            string problem = fault.Fault == DiskFault.NoSpace ? "no space left on the host's file system" : "I/O errors of the host";
            _events.Publish("disk-error", _record.Name, message: $"{fault.Disk} ({file}): {problem}; the guest gets I/O errors");
            DaemonLog.DiskFails(_log, _record.Name, fault.Disk, file, problem);
        }
    }

    private void OnGuestEvent(IWorker worker, GuestEvent told)
    {
        lock (_gate)
        {
            int bit = told switch { GuestEvent.Panicked => 1, GuestEvent.CrashKernel => 2, _ => 0 };
            if (bit == 0 || (_told & bit) != 0 || !ReferenceEquals(_worker, worker))
            {
                return;
            }

            _told |= bit;
            bool preserved = told == GuestEvent.Panicked && _spec is { OnCrash: CrashPolicy.Preserve };
            string follows = (told, preserved) switch
            {
                (GuestEvent.CrashKernel, _) => "its crash kernel takes over",
                (_, true) => "it stays as it is until it is stopped (onCrash: preserve)",
                (_, false) => "it ends",
            };
            _events.Publish(told == GuestEvent.Panicked ? "guest-panicked" : "guest-crash-kernel", _record.Name, message: follows);
            DaemonLog.GuestPanicked(_log, _record.Name, follows);
            if (preserved && _state is not VmState.Stopping)
            {
                MoveIfPossible(VmEvent.Crashed);
            }
        }
    }
}
