using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;
using Vmm.Machine.Spec;

namespace Vmm.Daemon.Vms;

/// <content>What a guest tells of itself while it runs.</content>
public sealed partial class ManagedVm
{
    private int _told; // events of this run that were heard, bit by bit: a worker that was taken over may repeat them without end

    /// <summary>A worker holds it, or soon will. Under the lock.</summary>
    private bool HasOrGetsWorker => VmLifeCycle.IsAlive(_state, _worker is not null);

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
