using Vmm.Devices.Acpi;
using Vmm.Machine.Build;
using Vmm.Machine.Cpu;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Layout;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Machine.Boot;

/// <summary>
/// What a guest finds at its start: ACPI tables, kernel, command line. It is the only part that writes guest memory; a machine whose state
/// comes from elsewhere has none.
/// </summary>
internal sealed class GuestStart : IDisposable
{
    // The memory map reserves it with the ACPI tables.
    private const ulong GenerationIdAddress = BootLayout.FirmwarePage;

    private readonly VmSpec _spec;
    private readonly KernelImage _kernel;
    private readonly BootFile? _initrd;

    /// <summary>Opens the files, before anything is built.</summary>
    /// <exception cref="BootException">Kernel or initrd cannot be booted.</exception>
    internal GuestStart(VmSpec spec, Resources.IMachineResources resources)
    {
        _spec = spec;
        _kernel = KernelImage.Load(resources.OpenKernel(spec.Boot));
        try
        {
            _initrd = spec.Boot.Initrd is null ? null : resources.OpenInitrd(spec.Boot);
        }
        catch
        {
            _kernel.Dispose();
            throw;
        }
    }

    private static int AcpiRoom => (int)(BootLayout.FirmwarePage - BootLayout.AcpiTables);

    /// <summary>Writes it into guest memory. Where the first vCPU starts.</summary>
    internal BootInfo Write(GuestMemory memory, MemoryMap map, CpuTopology topology, DeviceSet devices)
    {
        AcpiConfig acpi = devices.Hotplug.Describe(AcpiTopology.Of(_spec, map, topology, map.Hot.Count > 0) with
        {
            Initiators = Initiators(devices),
            Serial = _spec.Serial,
            PvPanic = _spec.PvPanic,
            GenerationId = _spec.GenerationId is { } id ? WriteGenerationId(memory, id) : null,
            PowerButtonGsi = PlatformDevices.PowerButtonGsi,
            KeyboardGsi = PlatformDevices.KeyboardGsi,
            IntxGsis = devices.Slots.IntxGsis,
            VirtioMmio = devices.Slots.MmioDevices,
        });
        GuestAddress rsdp = new(BootLayout.AcpiTables);
        byte[] tables = AcpiTables.Build(acpi, rsdp, AcpiRoom);
        if (!memory.TryWrite(rsdp, tables))
        {
            throw new InvalidOperationException("the first vnode must hold the first MiB of memory");
        }

        ResetStub.Write(memory);
        return BootLoader.Load(memory, new BootRequest
        {
            Kernel = _kernel,
            Initrd = _initrd,
            CommandLine = string.Join(' ', [_spec.Boot.Cmdline, .. devices.Slots.KernelArguments]).Trim(),
            AcpiRsdp = rsdp,
            Reserved = [new BootMemoryRange(MemoryMap.Ecam.Start.Value, MemoryMap.Ecam.Length, BootMemoryRange.Reserved)],
        });
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _initrd?.Dispose();
        _kernel.Dispose();
    }

    /// <summary>PCI devices of the start that are near to a vnode, for the guest's tables.</summary>
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

    /// <summary>Writes the generation id, in the byte order of Microsoft's GUIDs, and says where it is.</summary>
    private static GuestAddress WriteGenerationId(GuestMemory memory, string text)
    {
        Guid id = text is "auto" ? Guid.NewGuid() : Guid.ParseExact(text, "D");
        GuestAddress at = new(GenerationIdAddress);
        return memory.TryWrite(at, id.ToByteArray())
            ? at
            : throw new InvalidOperationException("the first vnode must hold the first MiB of memory");
    }
}
