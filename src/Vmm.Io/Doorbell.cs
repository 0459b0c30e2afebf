using Vmm.Interop;

namespace Vmm.Io;

/// <summary>
/// Watches an eventfd for a loop. A ring of the bell costs one poll completion and one read of this eventfd; bells that did not ring cost
/// nothing.
/// </summary>
public sealed class Doorbell : IoOperation
{
    private readonly EventFd _bell;
    private readonly Action? _rung;

    internal Doorbell(EventFd bell, Action? rung)
    {
        _bell = bell;
        _rung = rung;
    }

    /// <summary>Nobody watches it any more.</summary>
    internal bool IsAbandoned { get; set; }

    internal override bool IsWatch => true;

    /// <summary>True when the ring has the poll.</summary>
    internal bool IsArmed { get; private set; }

    /// <summary>Hears of the next ring also while the loop stays awake. Before it sleeps, the loop arms every doorbell.</summary>
    public void Arm()
    {
        if (!IsArmed)
        {
            IsArmed = true;
            Loop!.BeginPoll(_bell.Handle, PollEvents.Readable, (ulong)Number);
        }
    }

    /// <inheritdoc/>
    protected internal override void OnCompleted(int result)
    {
        IsArmed = false;
        if (IsAbandoned)
        {
            Loop!.Remove(this);
        }
        else if (result >= 0 && _bell.TryTake(out _))
        {
            _rung?.Invoke();
        }
    }
}
