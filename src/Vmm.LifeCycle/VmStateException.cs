namespace Vmm.LifeCycle;

/// <summary>Something that <see cref="VmLifeCycle"/> has not for the state in which the VM is.</summary>
public sealed class VmStateException(VmState state, VmEvent @event)
    : InvalidOperationException($"a VM that is {state} cannot be {VmLifeCycle.Participle(@event)}")
{
    /// <summary>Where it stands.</summary>
    public VmState State { get; } = state;

    /// <summary>What was to happen.</summary>
    public VmEvent Event { get; } = @event;
}
