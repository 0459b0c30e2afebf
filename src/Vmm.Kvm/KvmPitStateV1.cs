using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>The 8254 timer in the kernel. Its shape never changes.</summary>
public sealed record KvmPitStateV1
{
    /// <summary>Names this record in a saved VM.</summary>
    public const string Kind = "kvm-pit";

    /// <summary>Version of this record.</summary>
    public const int Version = 1;

    /// <summary>struct kvm_pit_state2.</summary>
    public required byte[] Pit { get; init; }

    /// <summary>Reads it.</summary>
    /// <exception cref="Interop.KernelException">The kernel refused.</exception>
    public static KvmPitStateV1 Capture(KvmVm vm) => new() { Pit = KernelBytes.Of(vm.GetPit()) };

    /// <summary>Writes it. Counters begin their present count anew: the kernel takes the moment of this call as their start.</summary>
    /// <exception cref="InvalidDataException">The wrong length.</exception>
    /// <exception cref="Interop.KernelException">The kernel refused.</exception>
    public void Restore(KvmVm vm) => vm.SetPit(KernelBytes.Parse<KvmPitState2>(Pit, "PIT state: it"));
}
