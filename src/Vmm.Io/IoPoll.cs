using Vmm.Interop;

namespace Vmm.Io;

/// <summary>
/// Waits once, each time it is begun, for a descriptor to have events (<see cref="IoLoop.WatchOnce"/>). Does not count as work: a poll may
/// wait for ever, and ends with its loop.
/// </summary>
/// <param name="ready">Called on the loop's thread with the events that came; hang-up and error always count.</param>
public sealed class IoPoll(Action<IoPoll, PollEvents> ready) : IoOperation
{
    /// <summary>What its owner knows it by.</summary>
    public ulong Token { get; set; }

    internal override bool IsWatch => true;

    /// <inheritdoc/>
    protected internal override void OnCompleted(int result) => ready(this, result < 0 ? PollEvents.Error : (PollEvents)result);
}
