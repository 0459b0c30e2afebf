using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>
/// The interrupt controllers in the kernel, without the local APICs, which are in <see cref="KvmVcpuStateV1"/>. Its shape never changes.
/// </summary>
public sealed record KvmIrqchipStateV1
{
    /// <summary>Names this record in a saved VM.</summary>
    public const string Kind = "kvm-irqchip";

    /// <summary>Version of this record.</summary>
    public const int Version = 1;

    /// <summary>struct kvm_irqchip of the first 8259.</summary>
    public required byte[] PicMaster { get; init; }

    /// <summary>struct kvm_irqchip of the second 8259.</summary>
    public required byte[] PicSlave { get; init; }

    /// <summary>struct kvm_irqchip of the I/O APIC.</summary>
    public required byte[] IoApic { get; init; }

    /// <summary>Reads them; no vCPU runs.</summary>
    /// <exception cref="Interop.KernelException">The kernel refused.</exception>
    public static KvmIrqchipStateV1 Capture(KvmVm vm) => new()
    {
        PicMaster = KernelBytes.Of(vm.GetIrqChip(IrqChip.PicMaster)),
        PicSlave = KernelBytes.Of(vm.GetIrqChip(IrqChip.PicSlave)),
        IoApic = KernelBytes.Of(vm.GetIrqChip(IrqChip.IoApic)),
    };

    /// <summary>
    /// Writes them, after the local APICs: what is pending in the I/O APIC is delivered at once.
    /// </summary>
    /// <exception cref="InvalidDataException">A part has the wrong length, or is of another controller.</exception>
    /// <exception cref="Interop.KernelException">The kernel refused.</exception>
    public void Restore(KvmVm vm)
    {
        KvmIrqchip[] chips =
        [
            Parse(PicMaster, nameof(PicMaster), IrqChip.PicMaster), Parse(PicSlave, nameof(PicSlave), IrqChip.PicSlave),
            Parse(IoApic, nameof(IoApic), IrqChip.IoApic),
        ];
        foreach (KvmIrqchip chip in chips)
        {
            vm.SetIrqChip(chip);
        }
    }

    private static KvmIrqchip Parse(byte[] bytes, string part, IrqChip expected)
    {
        KvmIrqchip chip = KernelBytes.Parse<KvmIrqchip>(bytes, $"irqchip state: {part}");
        return chip.ChipId == (uint)expected
            ? chip
            : throw new InvalidDataException($"irqchip state: {part} is of the controller {chip.ChipId}, not {(uint)expected}.");
    }
}
