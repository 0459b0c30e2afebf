using Vmm.Contracts.Control;
using Vmm.LifeCycle;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>
/// Whether and when a VM that ended is started again. A guest's own reboot is, at once, and one that panicked, unless its spec says
/// otherwise; what else is, the policy of its spec says. <see cref="RestartPace"/> says when. Not thread-safe.
/// </summary>
internal sealed class RestartPlan
{
    private readonly RestartPace _pace = new();

    /// <summary>Starts by this plan since somebody started the VM.</summary>
    internal int Restarts { get; private set; }

    /// <summary>Somebody started the VM: what was before does not count.</summary>
    internal void Reset()
    {
        _pace.Reset();
        Restarts = 0;
    }

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

        Restarts++;
        return _pace.After(exit.Reason == ExitReason.Reset, ran);
    }
}
