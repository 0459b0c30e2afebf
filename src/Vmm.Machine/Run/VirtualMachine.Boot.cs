using Vmm.Devices.Acpi;
using Vmm.Machine.Boot;
using Vmm.Machine.Cpu;
using Vmm.Machine.Layout;
using Vmm.Memory;

namespace Vmm.Machine.Run;

/// <content>What the guest finds at its start: ACPI tables, kernel, command line.</content>
public sealed partial class VirtualMachine
{
    private BootInfo LoadBoot(KernelImage kernel, BootFile? initrd, GuestMemory memory, MemoryMap map, CpuTopology topology, List<string> mmioArguments)
    {
        int vnodes = _spec.EffectiveVnodes.Count;
        AcpiConfig acpi = new()
        {
            Processors = Processors(topology),
            Memory = Memory(map),
            Distances = _spec.Numa?.Distances ?? (_spec.Numa is not null || HasHotMemory ? HostDistances.Of(_spec.EffectiveVnodes) : null),
            EcamBase = MemoryMap.Ecam.Start,
            Window32Start = MemoryMap.PciWindow32.Start,
            Window32Length = MemoryMap.PciWindow32.Length,
            Window64Start = map.PciWindow64.Start,
            Window64Length = map.PciWindow64.Length,
            Serial = _spec.Serial,
            PvPanic = _spec.PvPanic,
            GenerationId = _spec.GenerationId is { } id ? WriteGenerationId(memory, id) : null,
            PowerButtonGsi = PowerButtonGsi,
            HotplugGsi = HotplugGsi,
            HotplugSlots = HotplugSlots(),
        };
        GuestAddress rsdp = new(BootLayout.AcpiTables);
        byte[] tables = AcpiTables.Build(acpi, rsdp, AcpiRoom);
        if (!memory.TryWrite(rsdp, tables))
        {
            throw new InvalidOperationException("the first vnode must hold the first MiB of memory");
        }

        return BootLoader.Load(memory, new BootRequest
        {
            Kernel = kernel,
            Initrd = initrd,
            CommandLine = string.Join(' ', [_spec.Boot.Cmdline, .. mmioArguments]).Trim(),
            AcpiRsdp = rsdp,
            Reserved = [new BootMemoryRange(MemoryMap.Ecam.Start.Value, MemoryMap.Ecam.Length, BootMemoryRange.Reserved)],
        });
    }

    private static AcpiProcessor[] Processors(CpuTopology topology)
    {
        AcpiProcessor[] processors = new AcpiProcessor[topology.Vcpus.Count];
        for (int i = 0; i < processors.Length; i++)
        {
            processors[i] = new AcpiProcessor(topology.Vcpus[i].ApicId, topology.Vcpus[i].Vnode);
        }

        return processors;
    }

    private static AcpiMemory[] Memory(MemoryMap map)
    {
        AcpiMemory[] memory = new AcpiMemory[map.Ram.Count + map.Hot.Count];
        for (int i = 0; i < map.Ram.Count; i++)
        {
            memory[i] = new AcpiMemory(map.Ram[i].Start, map.Ram[i].Length, map.Ram[i].Vnode);
        }

        for (int i = 0; i < map.Hot.Count; i++)
        {
            memory[map.Ram.Count + i] = new AcpiMemory(map.Hot[i].Start, map.Hot[i].Length, map.Hot[i].Vnode, HotPluggable: true);
        }

        return memory;
    }
}
