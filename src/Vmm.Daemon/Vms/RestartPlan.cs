using Vmm.Contracts.Control;
using Vmm.LifeCycle;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>
/// Whether and when a VM that ended is started again. A guest's own reboot is, at once, and one that panicked, unless its spec says
/// otherwise; what else is, the policy of its spec says. Runs that end soon, one after the other, are started later and later: 1 s, 2 s, 4
/// s, up to a minute. Not thread-safe.
/// </summary>
internal sealed class RestartPlan
{
    private static readonly TimeSpan s_soon = TimeSpan.FromSeconds(60), s_longest = TimeSpan.FromSeconds(60);
    private const int FreeReboots = 3;

    private int _short;

    /// <summary>Starts by this plan since somebody started the VM.</summary>
    internal int Restarts { get; private set; }

    /// <summary>Somebody started the VM: what was before does not count.</summary>
    internal void Reset() => (_short, Restarts) = (0, 0);

    /// <summary>How long to wait before the next start; null is for ever.</summary>
    /// <param name="spec">Whose policies decide.</param>
    /// <param name="exit">How it ended.</param>
    /// <param name="ran">How long it ran.</param>
    internal TimeSpan? After(VmSpec spec, WorkerExit exit, TimeSpan ran)
    {
        RestartPolicy policy = spec.Restart;
        bool again = exit.Reason switch
        {
            ExitReason.Stopped => false,
            ExitReason.Reset when spec.OnReboot == RebootPolicy.Restart => true,
            ExitReason.GuestPanicked when spec.OnCrash == CrashPolicy.Restart => true,
            ExitReason.Reset => policy == RestartPolicy.Always,
            ExitReason.PowerOff or ExitReason.DebugExit => policy == RestartPolicy.Always,
            _ => policy is RestartPolicy.OnFailure or RestartPolicy.Always,
        };
        if (!again)
        {
            return null;
        }

        _short = ran < s_soon ? _short + 1 : 0;
        Restarts++;
        int late = exit.Reason == ExitReason.Reset ? _short - FreeReboots : Math.Max(1, _short);
        return late <= 0 ? TimeSpan.Zero : TimeSpan.FromSeconds(Math.Min(Math.Pow(2, Math.Min(late, 10) - 1), s_longest.TotalSeconds));
    }
}
