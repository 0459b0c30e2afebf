using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Vms;

/// <summary>What can happen to a VM.</summary>
public enum VmEvent
{
    /// <summary>A start was asked for.</summary>
    Start,

    /// <summary>The vCPUs run.</summary>
    Started,

    /// <summary>A pause was carried out.</summary>
    Paused,

    /// <summary>The vCPUs go on.</summary>
    Resumed,

    /// <summary>A save was asked for: its vCPUs stand still.</summary>
    Save,

    /// <summary>Nothing came of the save: it runs as before.</summary>
    SaveUndone,

    /// <summary>Nothing came of the save of a paused VM: it is paused as before.</summary>
    SaveUndonePaused,

    /// <summary>It is saved, and its worker is gone.</summary>
    Saved,

    /// <summary>Its saved state is forgotten.</summary>
    SaveDiscarded,

    /// <summary>The power button was pressed; what the guest makes of it is another event.</summary>
    PowerButton,

    /// <summary>The guest was woken; one that is awake does not notice.</summary>
    Wake,

    /// <summary>A stop was asked for, perhaps again.</summary>
    Stop,

    /// <summary>It ended as it should: by the guest, or because it was stopped.</summary>
    Ended,

    /// <summary>It ended by a fault, or could not be started.</summary>
    Failed,

    /// <summary>Its guest's kernel panicked: it ended by that, or is preserved.</summary>
    Crashed,
}

/// <summary>The life of a VM as one table. What is not in it cannot happen.</summary>
public static class VmLifeCycle
{
    private static readonly Dictionary<(VmState, VmEvent), VmState> s_next = new()
    {
        [(VmState.Defined, VmEvent.Start)] = VmState.Starting,
        [(VmState.Stopped, VmEvent.Start)] = VmState.Starting,
        [(VmState.Failed, VmEvent.Start)] = VmState.Starting,
        [(VmState.Crashed, VmEvent.Start)] = VmState.Starting,
        [(VmState.Starting, VmEvent.Started)] = VmState.Running,
        [(VmState.Starting, VmEvent.Ended)] = VmState.Stopped,
        [(VmState.Starting, VmEvent.Failed)] = VmState.Failed,
        [(VmState.Starting, VmEvent.Crashed)] = VmState.Crashed,
        [(VmState.Running, VmEvent.Paused)] = VmState.Paused,
        [(VmState.Running, VmEvent.PowerButton)] = VmState.Running,
        [(VmState.Running, VmEvent.Wake)] = VmState.Running,
        [(VmState.Running, VmEvent.Stop)] = VmState.Stopping,
        [(VmState.Running, VmEvent.Ended)] = VmState.Stopped,
        [(VmState.Running, VmEvent.Failed)] = VmState.Failed,
        [(VmState.Running, VmEvent.Crashed)] = VmState.Crashed,
        [(VmState.Paused, VmEvent.Resumed)] = VmState.Running,
        [(VmState.Paused, VmEvent.Stop)] = VmState.Stopping,
        [(VmState.Paused, VmEvent.Ended)] = VmState.Stopped,
        [(VmState.Paused, VmEvent.Failed)] = VmState.Failed,
        [(VmState.Paused, VmEvent.Crashed)] = VmState.Crashed,
        [(VmState.Running, VmEvent.Save)] = VmState.Saving,
        [(VmState.Paused, VmEvent.Save)] = VmState.Saving,
        [(VmState.Saving, VmEvent.SaveUndone)] = VmState.Running,
        [(VmState.Saving, VmEvent.SaveUndonePaused)] = VmState.Paused,
        [(VmState.Saving, VmEvent.Saved)] = VmState.Saved,
        [(VmState.Running, VmEvent.Saved)] = VmState.Saved, // these three: its worker outlived a vmmd that had it saved
        [(VmState.Paused, VmEvent.Saved)] = VmState.Saved,
        [(VmState.Stopping, VmEvent.Saved)] = VmState.Saved,
        [(VmState.Saving, VmEvent.Stop)] = VmState.Stopping,
        [(VmState.Saving, VmEvent.Ended)] = VmState.Stopped,
        [(VmState.Saving, VmEvent.Failed)] = VmState.Failed,
        [(VmState.Saving, VmEvent.Crashed)] = VmState.Crashed,
        [(VmState.Starting, VmEvent.Saved)] = VmState.Saved, // a restore that did not succeed
        [(VmState.Saved, VmEvent.Start)] = VmState.Starting,
        [(VmState.Saved, VmEvent.SaveDiscarded)] = VmState.Stopped,
        [(VmState.Crashed, VmEvent.Stop)] = VmState.Stopping,
        [(VmState.Crashed, VmEvent.Ended)] = VmState.Stopped,
        [(VmState.Crashed, VmEvent.Failed)] = VmState.Failed,
        [(VmState.Stopping, VmEvent.Stop)] = VmState.Stopping,
        [(VmState.Stopping, VmEvent.Ended)] = VmState.Stopped,
        [(VmState.Stopping, VmEvent.Failed)] = VmState.Failed,
        [(VmState.Stopping, VmEvent.Crashed)] = VmState.Crashed,
    };

    /// <summary>The state behind an event; false when the event is not possible there.</summary>
    public static bool TryNext(VmState state, VmEvent @event, out VmState next) => s_next.TryGetValue((state, @event), out next);

    /// <summary>How people call what an event does: "cannot be …".</summary>
    public static string Participle(VmEvent @event) => @event switch
    {
        VmEvent.Start => "started",
        VmEvent.Paused => "paused",
        VmEvent.Resumed => "resumed",
        VmEvent.PowerButton => "asked to power off",
        VmEvent.Wake => "woken",
        VmEvent.Stop => "stopped",
        VmEvent.Save => "saved",
        _ => @event.ToString(),
    };

    /// <summary>True while a worker may hold the VM.</summary>
    /// <param name="state">Its state.</param>
    /// <param name="hasWorker">Whether there is one: a crashed VM has it while it is preserved.</param>
    public static bool IsAlive(VmState state, bool hasWorker) =>
        state is VmState.Starting or VmState.Running or VmState.Paused or VmState.Saving or VmState.Stopping
            || (state == VmState.Crashed && hasWorker);

    /// <summary>The state of a VM whose worker stands there.</summary>
    public static VmState Of(WorkerState state) => state switch
    {
        WorkerState.Idle or WorkerState.Ready => VmState.Starting,
        WorkerState.Paused => VmState.Paused,
        WorkerState.Crashed => VmState.Crashed,
        _ => VmState.Running,
    };

    /// <summary>What an end means for the state.</summary>
    public static VmEvent EventOf(WorkerExitReason reason) => reason switch
    {
        WorkerExitReason.TripleFault or WorkerExitReason.Failed or WorkerExitReason.WorkerDied => VmEvent.Failed,
        WorkerExitReason.GuestPanicked => VmEvent.Crashed,
        _ => VmEvent.Ended,
    };

    /// <summary>The state of a VM whose last run ended so, long ago.</summary>
    public static VmState After(WorkerExitReason reason) => EventOf(reason) switch
    {
        VmEvent.Failed => VmState.Failed,
        VmEvent.Crashed => VmState.Crashed,
        _ => VmState.Stopped,
    };
}
