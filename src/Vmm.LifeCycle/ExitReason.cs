namespace Vmm.LifeCycle;

/// <summary>
/// Why a run of a VM is over. The names are words of the control protocol, of the REST interface and of the inventory: none is removed or
/// renamed.
/// </summary>
public enum ExitReason
{
    /// <summary>The guest powered itself off.</summary>
    PowerOff,

    /// <summary>The guest asked for a reset; who runs the VM decides whether it is started again.</summary>
    Reset,

    /// <summary>The guest wrote its exit code to the debug-exit port.</summary>
    DebugExit,

    /// <summary>The guest crashed its CPU.</summary>
    TripleFault,

    /// <summary>Somebody stopped it from outside.</summary>
    Stopped,

    /// <summary>The VMM or KVM could not go on; the message says why.</summary>
    Failed,

    /// <summary>The worker process died without a word: killed, or it crashed. Only its daemon can say this.</summary>
    WorkerDied,

    /// <summary>The guest's kernel told of its panic (pvpanic).</summary>
    GuestPanicked,
}
