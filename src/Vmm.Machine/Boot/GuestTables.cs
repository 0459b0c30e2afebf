using Vmm.Cpu;
using Vmm.Devices.Acpi;
using Vmm.Devices.Smbios;
using Vmm.Machine.Build;
using Vmm.Machine.Cpu;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Layout;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Machine.Boot;

/// <summary>What the ACPI tables of a machine say, whoever puts them before the guest.</summary>
internal static class GuestTables
{
    // The memory map reserves it with the ACPI tables of the loader, and firmware leaves it alone.
    private const ulong GenerationIdAddress = BootLayout.FirmwarePage;

    /// <summary>All of it.</summary>
    internal static AcpiConfig Describe(VmSpec spec, MemoryMap map, CpuTopology topology, DeviceSet devices) =>
        devices.Hotplug.Describe(AcpiTopology.Of(spec, map, topology, map.Hot.Count > 0) with
        {
            Initiators = Initiators(devices),
            Serial = spec.Serial,
            PvPanic = spec.PvPanic,
            GenerationId = spec.GenerationId is null ? null : new GuestAddress(GenerationIdAddress),
            PowerButtonGsi = PlatformDevices.PowerButtonGsi,
            KeyboardGsi = PlatformDevices.KeyboardGsi,
            IntxGsis = devices.Slots.IntxGsis,
            VirtioMmio = devices.Slots.MmioDevices,
        });

    /// <summary>What SMBIOS says of it.</summary>
    internal static SmbiosConfig DescribeSmbios(VmSpec spec, MemoryMap map, CpuTopology topology, CpuDescription cpu)
    {
        SmbiosSpec told = spec.Smbios ?? new SmbiosSpec();
        return new SmbiosConfig
        {
            Manufacturer = told.Manufacturer ?? "Vmm",
            Product = told.Product ?? "Virtual machine",
            Version = told.Version,
            Serial = told.Serial,
            Sku = told.Sku,
            Family = told.Family,
            Uuid = told.Uuid is { } uuid ? Guid.ParseExact(uuid, "D") : Guid.Empty,
            OemStrings = told.OemStrings ?? [],
            HasBios = !spec.Boot.IsFirmware,
            Packages = Packages(topology),
            Processor = new SmbiosProcessor(cpu.Vendor, cpu.Brand, cpu.Signature),
            Memory = [.. map.Ram.Select(range => new SmbiosMemory(range.Start, range.Length, range.Vnode))],
        };
    }

    /// <summary>vCPUs by the package that their APIC id names.</summary>
    private static List<SmbiosPackage> Packages(CpuTopology topology)
    {
        List<SmbiosPackage> packages = [];
        uint last = 0;
        foreach (VcpuPlace vcpu in topology.Vcpus)
        {
            uint package = vcpu.ApicId >> topology.PackageShift;
            if (packages.Count == 0 || package != last)
            {
                packages.Add(default);
                last = package;
            }

            int threads = packages[^1].Threads + 1;
            packages[^1] = new SmbiosPackage((threads + topology.Shape.Threads - 1) / topology.Shape.Threads, threads);
        }

        return packages;
    }

    /// <summary>Writes the generation id, if there is one, in the byte order of Microsoft's GUIDs.</summary>
    internal static void WriteGenerationId(VmSpec spec, GuestMemory memory)
    {
        if (spec.GenerationId is not { } text)
        {
            return;
        }

        Guid id = text is "auto" ? Guid.NewGuid() : Guid.ParseExact(text, "D");
        if (!memory.TryWrite(new GuestAddress(GenerationIdAddress), id.ToByteArray()))
        {
            throw new InvalidOperationException("the first vnode must hold the first MiB of memory");
        }
    }

    /// <summary>PCI devices of the start that are near to a vnode.</summary>
    private static List<AcpiInitiator> Initiators(DeviceSet devices)
    {
        List<AcpiInitiator> initiators = [];
        foreach (AttachedDevice device in devices.All)
        {
            if (device is { IsPluggable: true, Address: { } at, Description.Vnode: { } vnode })
            {
                initiators.Add(new AcpiInitiator((byte)at.Bus, (byte)at.Slot, vnode));
            }
        }

        return initiators;
    }
}
