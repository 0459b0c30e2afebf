using Vmm.Memory;

namespace Vmm.Machine.Boot;

/// <summary>What to boot. The files stay the caller's.</summary>
public sealed record BootRequest
{
    /// <summary>The kernel.</summary>
    public required KernelImage Kernel { get; init; }

    /// <summary>Initial ramdisk, if any.</summary>
    public BootFile? Initrd { get; init; }

    /// <summary>Kernel command line, without a zero.</summary>
    public string CommandLine { get; init; } = "";

    /// <summary>GPA of the ACPI RSDP; null without ACPI.</summary>
    public GuestAddress? AcpiRsdp { get; init; }

    /// <summary>Reserved ranges outside RAM to show in the memory map, e.g. ECAM.</summary>
    public IReadOnlyList<BootMemoryRange> Reserved { get; init; } = [];
}

/// <summary>Where everything went and how the boot CPU starts.</summary>
/// <param name="Protocol">Entry convention.</param>
/// <param name="Cpu">Registers of vCPU 0.</param>
/// <param name="KernelStart">Lowest GPA the kernel uses.</param>
/// <param name="KernelEnd">One past the highest GPA the kernel uses.</param>
/// <param name="InitrdStart">GPA of the initrd, 0 without one.</param>
/// <param name="InitrdLength">Bytes of the initrd, 0 without one.</param>
/// <param name="MemoryMap">The map given to the guest.</param>
public sealed record BootInfo(
    BootProtocol Protocol,
    InitialCpuState Cpu,
    ulong KernelStart,
    ulong KernelEnd,
    ulong InitrdStart,
    ulong InitrdLength,
    IReadOnlyList<BootMemoryRange> MemoryMap);
