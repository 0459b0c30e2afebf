namespace Vmm.State;

/// <summary>
/// A unit whose state changes only while a vCPU accesses it, or the host asks: at rest as soon as those are. It saves one record.
/// </summary>
/// <typeparam name="T">Its record.</typeparam>
/// <param name="id">Its name.</param>
/// <param name="shape">Shape of the record.</param>
/// <param name="capture">Makes the record; any thread.</param>
/// <param name="restore">Takes one; throws <see cref="StateException"/> when a value cannot be.</param>
/// <param name="dependsOn">What it needs at work.</param>
public sealed class RegisterPart<T>(
    PartId id, StateShape<T> shape, Func<T> capture, Action<T> restore, params IReadOnlyList<PartId> dependsOn) : IMachinePart
    where T : class
{
    /// <inheritdoc/>
    public PartId Id => id;

    /// <inheritdoc/>
    public IReadOnlyList<PartId> DependsOn => dependsOn;

    /// <inheritdoc/>
    public ValueTask QuiesceAsync(Quiesce mode, Deadline deadline) => ValueTask.CompletedTask;

    /// <inheritdoc/>
    public void Resume()
    {
        // Nothing of it was stopped.
    }

    /// <inheritdoc/>
    public void Save(StateWriter to) => to.Write(shape, capture());

    /// <inheritdoc/>
    public void Restore(StateReader from) => restore(from.Read(shape));

    /// <inheritdoc/>
    public string Describe() => shape.Kind;
}
