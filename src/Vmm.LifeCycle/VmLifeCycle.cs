namespace Vmm.LifeCycle;

/// <summary>
/// The life of a VM as one table, for everybody who keeps a state. What is not in it cannot happen. The daemon uses all of it; a machine
/// knows only <see cref="VmEvent.Started"/>, <see cref="VmEvent.Paused"/>, <see cref="VmEvent.Resumed"/>, <see cref="VmEvent.Crashed"/> and
/// <see cref="VmEvent.Ended"/>.
/// </summary>
public static class VmLifeCycle
{
    private static readonly Dictionary<(VmState, VmEvent), VmState> s_next = new()
    {
        [(VmState.Defined, VmEvent.Start)] = VmState.Starting,
        [(VmState.Stopped, VmEvent.Start)] = VmState.Starting,
        [(VmState.Failed, VmEvent.Start)] = VmState.Starting,
        [(VmState.Crashed, VmEvent.Start)] = VmState.Starting,
        [(VmState.Saved, VmEvent.Start)] = VmState.Starting,

        [(VmState.Starting, VmEvent.Started)] = VmState.Running,
        [(VmState.Starting, VmEvent.Ended)] = VmState.Stopped,
        [(VmState.Starting, VmEvent.Failed)] = VmState.Failed,
        [(VmState.Starting, VmEvent.Crashed)] = VmState.Crashed, // a guest can be quicker than the news of its start
        [(VmState.Starting, VmEvent.Saved)] = VmState.Saved, // a restore that did not succeed

        [(VmState.Running, VmEvent.Paused)] = VmState.Paused,
        [(VmState.Running, VmEvent.PowerButton)] = VmState.Running,
        [(VmState.Running, VmEvent.Wake)] = VmState.Running,
        [(VmState.Running, VmEvent.Save)] = VmState.Saving,
        [(VmState.Running, VmEvent.Move)] = VmState.Migrating,
        [(VmState.Running, VmEvent.Stop)] = VmState.Stopping,
        [(VmState.Running, VmEvent.Ended)] = VmState.Stopped,
        [(VmState.Running, VmEvent.Failed)] = VmState.Failed,
        [(VmState.Running, VmEvent.Crashed)] = VmState.Crashed,
        [(VmState.Running, VmEvent.Saved)] = VmState.Saved, // here and below: its worker outlived a vmmd that had it saved

        [(VmState.Paused, VmEvent.Resumed)] = VmState.Running,
        [(VmState.Paused, VmEvent.Save)] = VmState.Saving,
        [(VmState.Paused, VmEvent.Move)] = VmState.Migrating,
        [(VmState.Paused, VmEvent.Stop)] = VmState.Stopping,
        [(VmState.Paused, VmEvent.Ended)] = VmState.Stopped,
        [(VmState.Paused, VmEvent.Failed)] = VmState.Failed,
        [(VmState.Paused, VmEvent.Crashed)] = VmState.Crashed,
        [(VmState.Paused, VmEvent.Saved)] = VmState.Saved,

        [(VmState.Saving, VmEvent.SaveUndone)] = VmState.Running,
        [(VmState.Saving, VmEvent.SaveUndonePaused)] = VmState.Paused,
        [(VmState.Saving, VmEvent.Saved)] = VmState.Saved,
        [(VmState.Saving, VmEvent.Stop)] = VmState.Stopping,
        [(VmState.Saving, VmEvent.Ended)] = VmState.Stopped,
        [(VmState.Saving, VmEvent.Failed)] = VmState.Failed,
        [(VmState.Saving, VmEvent.Crashed)] = VmState.Crashed,

        [(VmState.Migrating, VmEvent.MoveOver)] = VmState.Running,
        [(VmState.Migrating, VmEvent.MoveOverPaused)] = VmState.Paused,
        [(VmState.Migrating, VmEvent.Saved)] = VmState.Saved,
        [(VmState.Migrating, VmEvent.Stop)] = VmState.Stopping,
        [(VmState.Migrating, VmEvent.Ended)] = VmState.Stopped,
        [(VmState.Migrating, VmEvent.Failed)] = VmState.Failed,
        [(VmState.Migrating, VmEvent.Crashed)] = VmState.Crashed,

        [(VmState.Saved, VmEvent.SaveDiscarded)] = VmState.Stopped,

        [(VmState.Crashed, VmEvent.Stop)] = VmState.Stopping, // one that is preserved; so are the next two
        [(VmState.Crashed, VmEvent.Ended)] = VmState.Stopped,
        [(VmState.Crashed, VmEvent.Failed)] = VmState.Failed,

        [(VmState.Stopping, VmEvent.Stop)] = VmState.Stopping,
        [(VmState.Stopping, VmEvent.Ended)] = VmState.Stopped,
        [(VmState.Stopping, VmEvent.Failed)] = VmState.Failed,
        [(VmState.Stopping, VmEvent.Crashed)] = VmState.Crashed,
        [(VmState.Stopping, VmEvent.Saved)] = VmState.Saved,
    };

    /// <summary>The state behind an event; false when the event is not possible there.</summary>
    public static bool TryNext(VmState state, VmEvent @event, out VmState next) => s_next.TryGetValue((state, @event), out next);

    /// <summary>The state behind an event.</summary>
    /// <exception cref="VmStateException">The event is not possible there.</exception>
    public static VmState Next(VmState state, VmEvent @event) =>
        TryNext(state, @event, out VmState next) ? next : throw new VmStateException(state, @event);

    /// <summary>How people call what an event does: "cannot be …".</summary>
    public static string Participle(VmEvent @event) => @event switch
    {
        VmEvent.Start or VmEvent.Started => "started",
        VmEvent.Paused => "paused",
        VmEvent.Resumed => "resumed",
        VmEvent.PowerButton => "asked to power off",
        VmEvent.Wake => "woken",
        VmEvent.Stop => "stopped",
        VmEvent.Save => "saved",
        VmEvent.Move => "moved",
        _ => @event.ToString(),
    };

    /// <summary>What an end means for the state.</summary>
    public static VmEvent EventOf(ExitReason reason) => reason switch
    {
        ExitReason.TripleFault or ExitReason.Failed or ExitReason.WorkerDied => VmEvent.Failed,
        ExitReason.GuestPanicked => VmEvent.Crashed,
        _ => VmEvent.Ended,
    };

    /// <summary>The state of a VM whose last run ended so, long ago.</summary>
    public static VmState After(ExitReason reason) => Next(VmState.Running, EventOf(reason));
}
