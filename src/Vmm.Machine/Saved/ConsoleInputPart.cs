using Vmm.Machine.Run;
using Vmm.State;

namespace Vmm.Machine.Saved;

/// <summary>
/// What the user types, as a unit: it comes to rest before the consoles. What was taken from the user is saved; what is typed later stays
/// with the user.
/// </summary>
/// <param name="feed">Takes it.</param>
/// <param name="dependsOn">The consoles.</param>
internal sealed class ConsoleInputPart(ConsoleFeed feed, IReadOnlyList<PartId> dependsOn) : IMachinePart
{
    /// <inheritdoc/>
    public PartId Id { get; } = new("console-input");

    /// <inheritdoc/>
    public IReadOnlyList<PartId> DependsOn => dependsOn;

    /// <inheritdoc/>
    public ValueTask QuiesceAsync(Quiesce mode, Deadline deadline)
    {
        deadline.Token.ThrowIfCancellationRequested();
        feed.Hold(deadline.Token);
        return ValueTask.CompletedTask;
    }

    /// <inheritdoc/>
    public void Resume() => feed.Resume();

    /// <inheritdoc/>
    public void Save(StateWriter to)
    {
        if (feed.Pending is { Length: > 0 } pending)
        {
            to.Write(MachineStates.ConsoleInput, new ConsoleInputStateV1 { Pending = pending });
        }
    }

    /// <inheritdoc/>
    public void Restore(StateReader from)
    {
        if (from.TryRead(MachineStates.ConsoleInput) is { } state)
        {
            feed.Pending = state.Pending;
        }
    }

    /// <inheritdoc/>
    public string Describe() => "input of the consoles";
}
