using Vmm.Devices.Acpi;
using Vmm.Machine.Cpu;
using Vmm.Placement;
using Vmm.Spec;

namespace Vmm.Machine.Layout;

/// <summary>What the ACPI tables say of processors, memory and how far they are from each other.</summary>
public static class AcpiTopology
{
    /// <summary>The part of the tables that follows from the spec and its layout; devices are added by <c>with</c>.</summary>
    /// <param name="spec">A validated spec with its vnodes.</param>
    /// <param name="map">Its guest physical addresses.</param>
    /// <param name="topology">Its vCPUs.</param>
    /// <param name="hotMemory">Some vnode's memory can come and go: then there are NUMA tables for a single vnode, too.</param>
    public static AcpiConfig Of(VmSpec spec, MemoryMap map, CpuTopology topology, bool hotMemory)
    {
        IReadOnlyList<IReadOnlyList<int>>? distances = spec.Numa?.Distances
            ?? (spec.Numa is not null || hotMemory ? HostDistances.Of(spec.EffectiveVnodes) : null);
        return new AcpiConfig
        {
            Processors = Processors(topology),
            Memory = Memory(map),
            Distances = distances,
            Performance = spec.Numa is not null && distances is not null ? MemoryPerformance.Of(spec, distances) : null,
            EcamBase = MemoryMap.Ecam.Start,
            Window32Start = MemoryMap.PciWindow32.Start,
            Window32Length = MemoryMap.PciWindow32.Length,
            Window64Start = map.PciWindow64.Start,
            Window64Length = map.PciWindow64.Length,
        };
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
