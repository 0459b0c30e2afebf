using Vmm.Kvm;
using Vmm.State;

namespace Vmm.Machine.Saved;

/// <summary>That the TSCs of the vCPUs are in step, as a unit.</summary>
/// <param name="vcpus">The vCPUs, by their number.</param>
/// <param name="dependsOn">Their units.</param>
internal sealed class TscPart(IReadOnlyList<KvmVcpu> vcpus, IReadOnlyList<PartId> dependsOn) : IMachinePart
{
    /// <inheritdoc/>
    public PartId Id { get; } = new("tsc");

    /// <inheritdoc/>
    public IReadOnlyList<PartId> DependsOn => dependsOn;

    /// <inheritdoc/>
    public ValueTask QuiesceAsync(Quiesce mode, Deadline deadline) => ValueTask.CompletedTask;

    /// <inheritdoc/>
    public void Resume()
    {
        // Nothing stops a TSC.
    }

    /// <inheritdoc/>
    public void Save(StateWriter to)
    {
        if (KvmTscStateV1.Capture(vcpus) is { } state)
        {
            to.Write(KvmStates.Tsc, state);
        }
    }

    /// <inheritdoc/>
    public void Restore(StateReader from) => from.TryRead(KvmStates.Tsc)?.Restore(vcpus);

    /// <inheritdoc/>
    public string Describe() => "TSCs";
}
