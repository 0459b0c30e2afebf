namespace Vmm.Machine.Run;

/// <summary>Where a built machine stands.</summary>
public enum MachineState
{
    /// <summary>Built; nothing of the guest ran yet.</summary>
    Ready,

    /// <summary>The vCPUs run.</summary>
    Running,

    /// <summary>The vCPUs wait between two instructions. Requests that the guest made before still finish.</summary>
    Paused,

    /// <summary>The guest's kernel panicked, and its spec says that it is preserved: the vCPUs stand still for good.</summary>
    Crashed,

    /// <summary>Over; it does not run again.</summary>
    Ended,
}

/// <summary>A move between states that the table does not have.</summary>
public sealed class MachineStateException(MachineState from, MachineState to)
    : InvalidOperationException($"a VM that is {from} cannot become {to}")
{
    /// <summary>Where it stands.</summary>
    public MachineState From { get; } = from;

    /// <summary>Where it was to go.</summary>
    public MachineState To { get; } = to;
}

/// <summary>The transition table.</summary>
public static class MachineLifecycle
{
    /// <summary>True when the move exists.</summary>
    public static bool CanMove(MachineState from, MachineState to) => (from, to) switch
    {
        (MachineState.Ready, MachineState.Running) => true,
        (MachineState.Running, MachineState.Paused) => true,
        (MachineState.Paused, MachineState.Running) => true,
        (MachineState.Running or MachineState.Paused, MachineState.Crashed) => true,
        (MachineState.Ready or MachineState.Running or MachineState.Paused or MachineState.Crashed, MachineState.Ended) => true,
        _ => false,
    };
}
