using System.Globalization;
using Vmm.Kvm;
using Vmm.State;

namespace Vmm.Machine.Saved;

/// <summary>A vCPU as a unit. The pause of the machine brings it to rest, with all others and before any device.</summary>
/// <param name="index">Its number.</param>
/// <param name="vcpu">The vCPU.</param>
/// <param name="dependsOn">Memory that comes and goes: some of its registers name guest memory, which KVM looks up.</param>
internal sealed class VcpuPart(int index, KvmVcpu vcpu, IReadOnlyList<PartId> dependsOn) : IMachinePart
{
    /// <inheritdoc/>
    public PartId Id { get; } = NameOf(index);

    /// <inheritdoc/>
    public IReadOnlyList<PartId> DependsOn => dependsOn;

    internal static PartId NameOf(int index) => new(string.Create(CultureInfo.InvariantCulture, $"vcpu{index}"));

    /// <inheritdoc/>
    public ValueTask QuiesceAsync(Quiesce mode, Deadline deadline) => ValueTask.CompletedTask;

    /// <inheritdoc/>
    public void Resume()
    {
        // The machine lets all of them go on together.
    }

    /// <inheritdoc/>
    public void Save(StateWriter to) => to.Write(KvmStates.Vcpu, KvmVcpuStateV1.Capture(vcpu));

    /// <inheritdoc/>
    public void Restore(StateReader from)
    {
        IReadOnlyList<uint> refused = from.Read(KvmStates.Vcpu).Restore(vcpu);
        if (refused.Count > 0)
        {
            string names = string.Join(", ", refused.Take(10).Select(r => $"0x{r:x}"));
            throw new StateException($"this host's KVM does not take the values of the MSRs {names}");
        }
    }

    /// <inheritdoc/>
    public string Describe() => "vCPU";
}
