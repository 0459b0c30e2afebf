using System.Buffers.Binary;
using Vmm.Devices.Acpi;
using Vmm.Devices.Firmware;
using Vmm.Devices.Legacy;
using Vmm.Devices.Pci;
using Vmm.Devices.Smbios;
using Vmm.LifeCycle;
using Vmm.Machine.Boot;
using Vmm.Machine.Build;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Layout;
using Vmm.Machine.Run;
using Vmm.Memory;

namespace Vmm.Machine.Firmware;

/// <summary>What a machine has that starts by firmware: the firmware itself, and what it reads of the machine.</summary>
internal sealed class FirmwareBoard : IDisposable
{
    private const uint RamType = 1, ReservedType = 2;
    private const int MapEntryBytes = 20;

    private readonly FirmwareImages _images;
    private readonly FwCfgItems _items = new();
    private AcpiConfig? _acpi;

    /// <param name="images">The firmware, this object's from here on.</param>
    internal FirmwareBoard(FirmwareImages images) => (_images, Flash) = (images, new CfiFlash(images.Variables));

    /// <summary>The flash with the variables.</summary>
    internal CfiFlash Flash { get; }

    /// <summary>What it reads of the machine; after <see cref="Attach"/>.</summary>
    internal FwCfg Configuration { get; private set; } = null!;

    /// <inheritdoc cref="FirmwareImages.Unlock"/>
    internal void Unlock() => _images.Unlock();

    /// <inheritdoc cref="FirmwareImages.TryLockAgain"/>
    internal bool TryLockAgain() => _images.TryLockAgain();

    /// <summary>Says by SMBIOS what the machine is; firmware puts the tables where the guest finds them.</summary>
    internal void Tell(SmbiosConfig machine)
    {
        byte[] tables = SmbiosTables.Build(machine);
        _items.AddFile(SmbiosTables.TablesName, tables);
        _items.AddFile(SmbiosTables.AnchorName, SmbiosTables.Anchor(tables, at: 0));
    }

    /// <summary>Connects it with the other parts, which are there.</summary>
    /// <param name="board">Buses, memory.</param>
    /// <param name="map">Where memory is.</param>
    /// <param name="acpi">What the tables say, but where ECAM and the 32-bit window are.</param>
    /// <param name="devices">The devices.</param>
    /// <param name="tree">The buses they are on.</param>
    /// <param name="rtc">Keeps the size of memory for older firmware.</param>
    internal void Attach(Board board, MemoryMap map, AcpiConfig acpi, DeviceSet devices, PciTree tree, CmosRtc rtc)
    {
        _acpi = acpi with { Face = PciFace.Q35 };
        AddItems(board, map, devices, tree);
        (ulong low, ulong high) = SumRam(board.Memory.Guest);
        rtc.TellMemory(low, high);
        Configuration = new FwCfg(_items, board.Memory.Guest.Dma);
        board.Ports.Map(FwCfg.Port, FwCfg.Length, Configuration, "firmware configuration");
        board.Ports.Map(
            PowerManagementControl.Port,
            PowerManagementControl.Length,
            new PowerManagementControl(() => board.End.Decide(new RunResult(ExitReason.PowerOff))),
            "power management control");
        FirmwareWords words = new(board);
        board.Ports.Map(FirmwareOutput.Port, 1, new FirmwareOutput(words.Take), "firmware output");
        board.Mmio.Map(_images.VariablesStart.Value, (ulong)_images.Variables.Bytes.Length, Flash, "flash of variables");
        _images.Attach(board.Memory.Map);
    }

    /// <summary>The guest moved ECAM: the tables say so.</summary>
    internal void EcamMoved(ulong? at)
    {
        if (at is { } place)
        {
            _items.Replace(AcpiFiles.TablesName, AcpiTables.BuildFiles(Around(place)).Tables);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _images.Dispose();

    private void AddItems(Board board, MemoryMap map, DeviceSet devices, PciTree tree)
    {
        ushort cpus = (ushort)board.Spec.Cpus;
        _items.Add(FwCfgItems.CpuCount, cpus);
        _items.Add(FwCfgItems.MostCpus, cpus);
        _items.AddFile("etc/e820", WriteMap(board.Memory.Guest));
        if (map.Hot.Count > 0)
        {
            byte[] end = new byte[8];
            BinaryPrimitives.WriteUInt64LittleEndian(end, map.PciWindow64.Start.Value);
            _items.AddFile("etc/reserved-memory-end", end);
        }

        AcpiFiles tables = AcpiTables.BuildFiles(Around(MemoryMap.Ecam.Start.Value));
        _items.AddFile(AcpiFiles.RsdpName, tables.Rsdp);
        _items.AddFile(AcpiFiles.TablesName, tables.Tables);
        _items.AddFile(AcpiFiles.ScriptName, tables.Script);
        _items.AddFile("bootorder", BootOrder.Of(devices.All, tree));
    }

    /// <summary>
    /// 32-bit BARs are below ECAM or above it, wherever there is more room: as firmware of 2022 and of 2024 has it, which puts ECAM low or
    /// high.
    /// </summary>
    private AcpiConfig Around(ulong ecam)
    {
        AddressWindow all = MemoryMap.FirmwareWindow32;
        ulong start = all.Start.Value, end = all.End.Value, after = ecam + MemoryMap.Ecam.Length;
        if (ecam >= start && ecam < end)
        {
            ulong below = ecam - start, above = after < end ? end - after : 0;
            (start, end) = below > above ? (start, ecam) : (after, end);
        }

        return _acpi! with { EcamBase = new GuestAddress(ecam), Window32Start = new GuestAddress(start), Window32Length = end - start };
    }

    private static byte[] WriteMap(GuestMemory memory)
    {
        List<RamRange> ram = BootMemoryMap.MergedRam(memory);
        byte[] map = new byte[(ram.Count + 1) * MapEntryBytes];
        for (int i = 0; i < ram.Count; i++)
        {
            WriteEntry(map.AsSpan(i * MapEntryBytes), ram[i].Start, ram[i].End - ram[i].Start, RamType);
        }

        WriteEntry(map.AsSpan(ram.Count * MapEntryBytes), EmptyVm.KernelPages.Start, EmptyVm.KernelPages.Length, ReservedType);
        return map;
    }

    private static void WriteEntry(Span<byte> at, ulong start, ulong length, uint type)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(at, start);
        BinaryPrimitives.WriteUInt64LittleEndian(at[8..], length);
        BinaryPrimitives.WriteUInt32LittleEndian(at[16..], type);
    }

    private static (ulong Low, ulong High) SumRam(GuestMemory memory)
    {
        ulong low = 0, high = 0;
        foreach (RamRange ram in BootMemoryMap.MergedRam(memory))
        {
            ulong length = ram.End - ram.Start;
            (low, high) = ram.Start < MemoryMap.HighRamStart ? (low + length, high) : (low, high + length);
        }

        return (low, high);
    }
}
