using System.Buffers.Binary;
using System.Globalization;
using Vmm.Devices.Acpi;
using Vmm.Memory;

namespace Vmm.Devices.Smbios;

/// <summary>
/// The tables that say what a machine is (DMTF DSP0134 3.0): structures one behind the other, and the entry point that a guest looks for.
/// The structures are those that the specification wants of every system (6.2), with OEM strings where there are some.
/// </summary>
public static class SmbiosTables
{
    /// <summary>Names of the two files that firmware looks for.</summary>
    public const string TablesName = "etc/smbios/smbios-tables", AnchorName = "etc/smbios/smbios-anchor";

    /// <summary>Bytes of the entry point (5.2.2).</summary>
    public const int AnchorBytes = 24;

    private const ushort SystemHandle = 0x100, ChassisHandle = 0x300, ProcessorHandle = 0x400, OemHandle = 0xB00, ArrayHandle = 0x1000;
    private const ushort DeviceHandle = 0x1100, MappedHandle = 0x1300, BootHandle = 0x2000, EndHandle = 0x7F00, None = 0xFFFF;
    private const byte Unknown = 2, Safe = 3;
    private const ulong Megabyte = 1 << 20;

    /// <summary>The structures.</summary>
    public static byte[] Build(SmbiosConfig machine)
    {
        ByteSink table = new();
        if (machine.HasBios)
        {
            Bios().WriteTo(table);
        }

        System(machine).WriteTo(table);
        Chassis(machine).WriteTo(table);
        for (int i = 0; i < machine.Packages.Count; i++)
        {
            Processor(machine, i).WriteTo(table);
        }

        if (machine.OemStrings.Count > 0)
        {
            OemStrings(machine.OemStrings).WriteTo(table);
        }

        AddMemory(machine.Memory, table);
        new SmbiosStructure(32, BootHandle).Zeros(6).Byte(0).WriteTo(table); // no error
        new SmbiosStructure(127, EndHandle).WriteTo(table);
        return table.ToArray();
    }

    /// <summary>The entry point, 64 bits wide; firmware puts its own address in.</summary>
    /// <param name="tables">The structures.</param>
    /// <param name="at">Where they are.</param>
    public static byte[] Anchor(ReadOnlySpan<byte> tables, ulong at)
    {
        byte[] anchor = new byte[AnchorBytes];
        "_SM3_"u8.CopyTo(anchor);
        anchor[6] = AnchorBytes;
        anchor[7] = 3; // 3.0.0
        anchor[10] = 1; // its own revision
        BinaryPrimitives.WriteInt32LittleEndian(anchor.AsSpan(12), tables.Length);
        BinaryPrimitives.WriteUInt64LittleEndian(anchor.AsSpan(16), at);
        byte sum = 0;
        foreach (byte each in anchor)
        {
            sum += each;
        }

        anchor[5] = (byte)-sum;
        return anchor;
    }

    // A year before 2008 would make Linux distrust what ACPI says of PCI windows.
    private static SmbiosStructure Bios() => new SmbiosStructure(0, 0)
        .Text("Vmm").Text("direct boot").Word(0xE000).Text("01/01/2026").Byte(0) // 64 KiB
        .Qword(1 << 3).Byte(0).Byte((1 << 2) | (1 << 4)) // characteristics are not told; it is a virtual machine
        .Byte(0).Byte(0).Byte(0xFF).Byte(0xFF);

    private static SmbiosStructure System(SmbiosConfig machine) => new SmbiosStructure(1, SystemHandle)
        .Text(machine.Manufacturer).Text(machine.Product).Text(machine.Version).Text(machine.Serial)
        .Bytes(machine.Uuid.ToByteArray()) // the first three fields little endian (7.2.1)
        .Byte(6) // woken by its power switch
        .Text(machine.Sku).Text(machine.Family);

    private static SmbiosStructure Chassis(SmbiosConfig machine) => new SmbiosStructure(3, ChassisHandle)
        .Text(machine.Manufacturer).Byte(1).Text(machine.Version).Text(machine.Serial).Text(null)
        .Byte(Safe).Byte(Safe).Byte(Safe).Byte(Unknown)
        .Dword(0).Byte(0).Byte(0).Byte(0).Byte(0).Text(machine.Sku);

    private static SmbiosStructure Processor(SmbiosConfig machine, int index)
    {
        SmbiosPackage package = machine.Packages[index];
        SmbiosProcessor kind = machine.Processor;
        return new SmbiosStructure(4, (ushort)(ProcessorHandle + index))
            .Text(string.Create(CultureInfo.InvariantCulture, $"CPU {index}")).Byte(3).Byte(1)
            .Text(kind.Vendor).Qword(kind.Id).Text(kind.Brand)
            .Byte(0).Word(0).Word(0).Word(0) // voltage and clocks are not known
            .Byte(0x41).Byte(1)              // there, and enabled
            .Word(None).Word(None).Word(None)
            .Text(null).Text(null).Text(null)
            .Byte(Short(package.Cores)).Byte(Short(package.Cores)).Byte(Short(package.Threads))
            .Word(1 << 2).Word(1)            // 64 bits; family: other
            .Word((ushort)package.Cores).Word((ushort)package.Cores).Word((ushort)package.Threads);
    }

    private static byte Short(int count) => (byte)Math.Min(count, 0xFF);

    private static SmbiosStructure OemStrings(IReadOnlyList<string> texts)
    {
        SmbiosStructure structure = new(11, OemHandle);
        structure.Byte((byte)texts.Count);
        foreach (string text in texts)
        {
            structure.AddText(text);
        }

        return structure;
    }

    /// <summary>One array, a device for the memory of each vnode, and where each range of it is.</summary>
    private static void AddMemory(IReadOnlyList<SmbiosMemory> memory, ByteSink table)
    {
        List<SmbiosMemory> devices = [];
        ulong total = 0;
        foreach (SmbiosMemory range in memory)
        {
            total += range.Length;
            int at = devices.FindIndex(device => device.Vnode == range.Vnode);
            if (at < 0)
            {
                devices.Add(range);
            }
            else
            {
                devices[at] = range with { Length = devices[at].Length + range.Length };
            }
        }

        ulong kilobytes = total >> 10;
        bool isWide = kilobytes >= 0x8000_0000;
        new SmbiosStructure(16, ArrayHandle)
            .Byte(1).Byte(3).Byte(Unknown).Dword(isWide ? 0x8000_0000 : (uint)kilobytes).Word(0xFFFE).Word((ushort)devices.Count)
            .Qword(isWide ? total : 0)
            .WriteTo(table);
        for (int i = 0; i < devices.Count; i++)
        {
            Device((ushort)i, devices[i].Vnode, devices[i].Length).WriteTo(table);
        }

        for (int i = 0; i < memory.Count; i++)
        {
            Mapped((ushort)i, memory[i]).WriteTo(table);
        }
    }

    private static SmbiosStructure Device(ushort number, int vnode, ulong bytes)
    {
        ulong megabytes = (bytes + Megabyte - 1) / Megabyte;
        bool isWide = megabytes >= 0x7FFF;
        return new SmbiosStructure(17, (ushort)(DeviceHandle + number))
            .Word(ArrayHandle).Word(0xFFFE).Word(None).Word(None) // no error information, widths are not known
            .Word(isWide ? (ushort)0x7FFF : (ushort)megabytes)
            .Byte(9).Byte(0)                                      // DIMM, of no set
            .Text(string.Create(CultureInfo.InvariantCulture, $"DIMM {number}"))
            .Text(string.Create(CultureInfo.InvariantCulture, $"node {vnode}"))
            .Byte(7).Word(1 << 1).Word(0)                         // RAM, of a kind that is not listed
            .Text("Vmm").Text(null).Text(null).Text(null)
            .Byte(0).Dword(isWide ? (uint)megabytes : 0).Word(0)
            .Word(0).Word(0).Word(0);
    }

    private static SmbiosStructure Mapped(ushort number, SmbiosMemory range)
    {
        ulong first = range.Start.Value, last = first + range.Length - 1;
        bool isWide = (last >> 10) >= 0xFFFF_FFFF;
        return new SmbiosStructure(19, (ushort)(MappedHandle + number))
            .Dword(isWide ? 0xFFFF_FFFF : (uint)(first >> 10)).Dword(isWide ? 0xFFFF_FFFF : (uint)(last >> 10))
            .Word(ArrayHandle).Byte(1)
            .Qword(isWide ? first : 0).Qword(isWide ? last : 0);
    }
}
