using Vmm.Contracts.Control;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>A start that the daemon will make by itself.</summary>
/// <param name="delay">How long it waits.</param>
// Its source is not disposed: it has no handle as long as nobody asks for one, and who waits may still look at its token.
#pragma warning disable CA1001
internal sealed class PlannedStart(TimeSpan delay)
#pragma warning restore CA1001
{
    private readonly CancellationTokenSource _cancel = new();

    internal TimeSpan Delay => delay;

    internal DateTimeOffset At { get; } = DateTimeOffset.UtcNow + delay;

    internal CancellationToken Cancelled => _cancel.Token;

    internal void Cancel() => _cancel.Cancel();
}

/// <summary>The next start of a VM that the daemon makes by itself. Under the lock of its VM.</summary>
internal sealed class RestartSchedule
{
    private readonly RestartPlan _plan = new();

    /// <summary>Null when there is none.</summary>
    internal PlannedStart? Due { get; private set; }

    /// <summary>Starts by the daemon since somebody's own.</summary>
    internal int Count => _plan.Restarts;

    /// <summary>Somebody started the VM: what was before does not count.</summary>
    internal void Reset() => _plan.Reset();

    /// <summary>Plans the start that follows an end, in place of one that was due; null when none follows.</summary>
    internal PlannedStart? TryPlan(VmSpec? spec, WorkerExit exit, TimeSpan ran)
    {
        if (spec is null || _plan.After(spec, exit, ran) is not { } delay)
        {
            return null;
        }

        Cancel();
        return Due = new PlannedStart(delay);
    }

    /// <summary>The start that was due begins.</summary>
    internal void Clear() => Due = null;

    /// <summary>True when there was one to cancel.</summary>
    internal bool Cancel()
    {
        PlannedStart? due = Due;
        Due = null;
        due?.Cancel();
        return due is not null;
    }
}
