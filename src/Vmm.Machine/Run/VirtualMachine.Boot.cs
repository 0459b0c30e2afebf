using Vmm.Devices.Acpi;
using Vmm.Machine.Boot;
using Vmm.Machine.Cpu;
using Vmm.Machine.Layout;
using Vmm.Memory;

namespace Vmm.Machine.Run;

/// <content>What the guest finds at its start: ACPI tables, kernel, command line.</content>
public sealed partial class VirtualMachine
{
    private BootInfo LoadBoot(KernelImage kernel, BootFile? initrd, GuestMemory memory, MemoryMap map, CpuTopology topology, VirtioSlots slots)
    {
        AcpiConfig acpi = AcpiTopology.Of(_spec, map, topology, HasHotMemory) with
        {
            Initiators = Initiators(),
            Serial = _spec.Serial,
            PvPanic = _spec.PvPanic,
            GenerationId = _spec.GenerationId is { } id ? WriteGenerationId(memory, id) : null,
            PowerButtonGsi = PowerButtonGsi,
            KeyboardGsi = KeyboardGsi,
            HotplugGsi = HotplugGsi,
            HotplugSlots = HotplugSlots(),
            VirtioMmio = slots.MmioDevices,
        };
        GuestAddress rsdp = new(BootLayout.AcpiTables);
        byte[] tables = AcpiTables.Build(acpi, rsdp, AcpiRoom);
        if (!memory.TryWrite(rsdp, tables))
        {
            throw new InvalidOperationException("the first vnode must hold the first MiB of memory");
        }

        ResetStub.Write(memory);
        return BootLoader.Load(memory, new BootRequest
        {
            Kernel = kernel,
            Initrd = initrd,
            CommandLine = string.Join(' ', [_spec.Boot.Cmdline, .. slots.KernelArguments]).Trim(),
            AcpiRsdp = rsdp,
            Reserved = [new BootMemoryRange(MemoryMap.Ecam.Start.Value, MemoryMap.Ecam.Length, BootMemoryRange.Reserved)],
        });
    }
}
