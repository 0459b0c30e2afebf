using Vmm.Cpu;
using Vmm.Devices.Acpi;
using Vmm.Devices.Smbios;
using Vmm.Machine.Cpu;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Layout;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Machine.Boot;

/// <summary>
/// What a guest finds at its start without firmware: ACPI and SMBIOS tables, kernel, command line. It is the only part that writes guest
/// memory; a machine whose state comes from elsewhere has none.
/// </summary>
internal sealed class GuestStart : IDisposable
{
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

    private static ulong TableRoom => BootLayout.FirmwarePage - BootLayout.AcpiTables;

    /// <summary>Writes it into guest memory. Where the first vCPU starts.</summary>
    internal BootInfo Write(GuestMemory memory, MemoryMap map, CpuTopology topology, DeviceSet devices, CpuDescription cpu)
    {
        byte[] smbios = SmbiosTables.Build(GuestTables.DescribeSmbios(_spec, map, topology, cpu));
        AcpiConfig acpi = GuestTables.Describe(_spec, map, topology, devices);
        GuestTables.WriteGenerationId(_spec, memory);
        GuestAddress rsdp = new(BootLayout.AcpiTables);
        ulong room = TableRoom - (((ulong)smbios.Length + 15) & ~15UL); // they end where the firmware's page begins
        byte[] tables = AcpiTables.Build(acpi, rsdp, (int)room);
        if (!memory.TryWrite(rsdp, tables)
            || !memory.TryWrite(new GuestAddress(rsdp.Value + room), smbios)
            || !memory.TryWrite(new GuestAddress(BootLayout.SmbiosAnchor), SmbiosTables.Anchor(smbios, rsdp.Value + room)))
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
}
