using Vmm.LifeCycle;

namespace Vmm.Machine.Run;

/// <summary>The end of a run.</summary>
/// <param name="Reason">Why it is over.</param>
/// <param name="DebugExitCode">The guest's code, for <see cref="ExitReason.DebugExit"/>.</param>
/// <param name="Message">One line for the user, without a prefix; null when there is nothing to say.</param>
/// <param name="Report">After a fault: what the vCPUs looked like, for people, line by line; null otherwise.</param>
public sealed record RunResult(ExitReason Reason, int DebugExitCode = 0, string? Message = null, IReadOnlyList<string>? Report = null)
{
    /// <summary>
    /// The process exit code: the guest's own for debug-exit, 0 after power-off, reset and a stop asked for, 1 otherwise.
    /// </summary>
    public int ExitCode => Reason switch
    {
        ExitReason.PowerOff or ExitReason.Reset or ExitReason.Stopped => 0,
        ExitReason.DebugExit => DebugExitCode & 0xFF,
        _ => 1,
    };
}
