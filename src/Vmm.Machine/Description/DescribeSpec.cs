using Vmm.Cpu;
using Vmm.Machine.Cpu;
using Vmm.Machine.Kinds;
using Vmm.Machine.Layout;
using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;

namespace Vmm.Machine.Description;

/// <summary>Gives everything that a spec asks for its place.</summary>
internal static class DescribeSpec
{
    internal static MachineDescription Describe(VmSpec spec, CpuDescription host)
    {
        IReadOnlyList<VnodeSpec> vnodes = spec.EffectiveVnodes;
        ByteSize[] sizes = new ByteSize[vnodes.Count], hot = new ByteSize[vnodes.Count];
        for (int i = 0; i < sizes.Length; i++)
        {
            (sizes[i], hot[i]) = (vnodes[i].BootMemory, vnodes[i].HotMemory);
        }

        MemoryMap map = MemoryMap.Create(sizes, host.PhysicalAddressBits, hot, spec.Boot.IsFirmware);
        CpuTopology topology = CpuTopology.Of(spec);
        VcpuDescription[] vcpus = new VcpuDescription[topology.Vcpus.Count];
        for (int i = 0; i < vcpus.Length; i++)
        {
            vcpus[i] = new VcpuDescription(topology.Vcpus[i].ApicId, topology.Vcpus[i].Vnode);
        }

        PciTree tree = PciTree.For(spec);
        return new MachineDescription
        {
            Spec = spec,
            Cpu = spec.Cpu is { } cpu ? cpu.Choice.Describe(host) : host,
            Vcpus = vcpus,
            Ram = map.Ram,
            Hot = map.Hot,
            PciWindow64 = map.PciWindow64,
            Bridges = tree.Count,
            Devices = Place(spec, tree),
            NextDisk = spec.Disks.Count,
            NextNet = spec.Nets.Count,
        };
    }

    private static List<DeviceDescription> Place(VmSpec spec, PciTree tree)
    {
        List<(DeviceKind Kind, DevicePlan Plan)> plans = [];
        int mmio = 0;
        foreach (DeviceKind kind in DeviceKinds.All)
        {
            foreach (DevicePlan plan in kind.Plan(spec))
            {
                plans.Add((kind, plan));
            }
        }

        PciSlotMap slots = new(tree);
        List<DeviceDescription> devices = new(plans.Count);
        foreach ((DeviceKind kind, DevicePlan plan) in plans)
        {
            DeviceDescription device = new() { Id = plan.Id, Kind = kind.Name, Vnode = plan.Vnode };
            if (plan.Transport == VirtioTransport.Pci)
            {
                devices.Add(device with
                {
                    Pci = slots.TakeNext(kind.OnRootBus, kind.ComesAndGoes)
                        ?? throw new HostMismatchException($"{plan.Id}: all PCI slots are taken; remove a device"),
                });
            }
            else if (mmio < DeviceCount.MostMmio)
            {
                devices.Add(device with { MmioSlot = mmio++ });
            }
            else
            {
                throw new HostMismatchException(
                    $"{plan.Id}: at most {mmio} virtio-mmio devices have an interrupt pin: make some of them pci");
            }
        }

        return devices;
    }
}
