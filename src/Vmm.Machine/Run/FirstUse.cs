using Vmm.Devices.Acpi;
using Vmm.Interop.Kvm;
using Vmm.Machine.Boot;
using Vmm.Machine.Cpu;
using Vmm.Machine.Layout;
using Vmm.Machine.Spec;
using Vmm.Memory;

namespace Vmm.Machine.Run;

/// <summary>
/// The first call of a method costs a process tens of microseconds, whatever it does; the tables of a first machine are 200 of them. A program that starts one VM
/// calls them on a second thread, while the first one still reads the kernel. The results are thrown away: they would be those of another machine.
/// </summary>
internal static class FirstUse
{
    internal static void OfTables(KvmCpuidEntry[] supported)
    {
        VmSpec spec = new() { Name = "first", Boot = new BootSpec { Kernel = "none" } };
        CpuTopology topology = CpuTopology.Create([0]);
        MemoryMap map = MemoryMap.Create([ByteSize.MiB(64)], CpuidModel.PhysicalAddressBits(supported), null);
        AcpiConfig acpi = AcpiTopology.Of(spec, map, topology, hotMemory: false) with { PowerButtonGsi = 3, HotplugGsi = VirtualMachine.HotplugGsi, HotplugSlots = 0b110 };
        _ = AcpiTables.Build(acpi, new GuestAddress(BootLayout.AcpiTables), 0x10000);
        _ = CpuidModel.Build(supported, topology, topology.Vcpus[0], tscDeadline: true);
    }
}
