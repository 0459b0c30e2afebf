namespace Vmm.LifeCycle;

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

    /// <summary>A move to another worker was asked for.</summary>
    Move,

    /// <summary>The move is over, or nothing came of it: the VM runs here.</summary>
    MoveOver,

    /// <summary>The same of a VM that was paused: it is paused here.</summary>
    MoveOverPaused,

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
