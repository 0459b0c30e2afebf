namespace Vmm.Machine.Run;

/// <summary>How a run ended.</summary>
public enum RunOutcome
{
    /// <summary>The guest powered itself off.</summary>
    PowerOff,

    /// <summary>The guest asked for a reset (a foreground VM does not restart).</summary>
    Reset,

    /// <summary>The guest wrote its exit code to the debug-exit port.</summary>
    DebugExit,

    /// <summary>The user stopped it: Ctrl-C, Ctrl-A x, SIGTERM.</summary>
    Stopped,

    /// <summary>The guest crashed its CPU.</summary>
    TripleFault,

    /// <summary>The guest's kernel told of its panic (pvpanic).</summary>
    Panicked,

    /// <summary>The VMM or KVM could not go on; the message says why.</summary>
    Failed,
}

/// <summary>The end of a run.</summary>
/// <param name="Outcome">How it ended.</param>
/// <param name="DebugExitCode">The guest's code, for <see cref="RunOutcome.DebugExit"/>.</param>
/// <param name="Message">One line for the user, without a prefix; null when there is nothing to say.</param>
/// <param name="Report">After a fault: what the vCPUs looked like, for people, line by line; null otherwise.</param>
public sealed record RunResult(RunOutcome Outcome, int DebugExitCode = 0, string? Message = null, IReadOnlyList<string>? Report = null)
{
    /// <summary>
    /// The process exit code: the guest's own for debug-exit, 0 after power-off, reset and a stop asked for, 1 otherwise.
    /// </summary>
    public int ExitCode => Outcome switch
    {
        RunOutcome.PowerOff or RunOutcome.Reset or RunOutcome.Stopped => 0,
        RunOutcome.DebugExit => DebugExitCode & 0xFF,
        _ => 1,
    };
}
