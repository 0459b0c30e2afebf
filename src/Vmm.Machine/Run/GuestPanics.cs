using Vmm.Devices.Legacy;
using Vmm.LifeCycle;
using Vmm.Machine.Build;
using Vmm.Spec;

namespace Vmm.Machine.Run;

/// <summary>What follows when a guest tells of a panic of its kernel.</summary>
internal sealed class GuestPanics(Board board)
{
    private int _panicked, _crashKernel;

    /// <summary>The guest told of a panic, at most once of each kind; on a thread of its own.</summary>
    internal event EventHandler<GuestPanicEventArgs>? Told;

    /// <summary>Makes the vCPUs stand still for good.</summary>
    internal Action Preserve { get; set; } = () => { };

    /// <summary>The guest told of a panic of its kernel.</summary>
    internal bool HasPanicked => Volatile.Read(ref _panicked) != 0;

    /// <summary>
    /// On the vCPU thread that told it. A guest may say so as often as it likes; each is heard once. What follows is for a thread beside
    /// it: waiting for all vCPUs is nothing for one of them.
    /// </summary>
    internal void Panicked(GuestPanicEvents events)
    {
        bool panicked = (events & GuestPanicEvents.Panicked) != 0;
        if (Interlocked.Exchange(ref panicked ? ref _panicked : ref _crashKernel, 1) != 0)
        {
            return;
        }

        if (panicked)
        {
            board.Gate.Lock(); // this vCPU executes nothing any more
        }

        if (board.Helpers.TryStart("guest-panic", () => Follow(panicked)) is not null)
        {
            board.End.Decide(new RunResult(ExitReason.GuestPanicked)); // with what is known
        }
    }

    /// <summary>A guest that panicked and went away at the same moment did not end well, whatever way it took.</summary>
    internal RunResult Apply(RunResult result) =>
        HasPanicked && result.Reason is ExitReason.Reset or ExitReason.PowerOff
            ? result with { Reason = ExitReason.GuestPanicked }
            : result;

    private void Follow(bool panicked)
    {
        bool preserve = panicked && board.Spec.OnCrash == CrashPolicy.Preserve;
        board.Note?.Invoke((panicked, preserve) switch
        {
            (false, _) => "the guest's kernel panicked; its crash kernel takes over",
            (true, true) => "the guest's kernel panicked; it stays as it is until it is stopped (onCrash: preserve)",
            (true, false) => "the guest's kernel panicked",
        });
        Told?.Invoke(this, new GuestPanicEventArgs(panicked));
        if (preserve)
        {
            Preserve();
        }
        else if (panicked)
        {
            board.End.Decide(new RunResult(ExitReason.GuestPanicked));
        }
    }
}
