using System.Buffers.Binary;
using System.Text;

namespace Vmm.Devices.Acpi;

/// <summary>Where the tables are that point to others.</summary>
/// <param name="Fadt">The FADT, which points to the DSDT.</param>
/// <param name="Xsdt">The XSDT, which points to all others.</param>
/// <param name="Listed">Number of tables that the XSDT lists.</param>
internal readonly record struct AcpiPlaces(ulong Fadt, ulong Xsdt, int Listed);

/// <summary>
/// ACPI tables as three files for a firmware, which takes memory for two of them and carries the third out: a script of commands of 128
/// bytes (QEMU's hw/acpi/bios-linker-loader.c) that adds the file's address to each pointer and makes the checksums anew.
/// </summary>
/// <param name="Rsdp">The RSDP.</param>
/// <param name="Tables">The tables; pointers count from the start of this file.</param>
/// <param name="Script">What the firmware does with them.</param>
public sealed record AcpiFiles(byte[] Rsdp, byte[] Tables, byte[] Script)
{
    /// <summary>Names that firmware looks for.</summary>
    public const string RsdpName = "etc/acpi/rsdp", TablesName = "etc/acpi/tables", ScriptName = "etc/table-loader";

    private const int CommandBytes = 128, NameBytes = 56;
    private const uint Allocate = 1, AddPointer = 2, AddChecksum = 3;
    private const byte HighMemory = 1, LowMemory = 2;
    private const int RsdpXsdt = 24, RsdpChecksum = 8, RsdpFirstBytes = 20, RsdpExtendedChecksum = 32, FadtDsdt = 140, TableChecksum = 9;

    internal static AcpiFiles Create(byte[] rsdp, byte[] tables, AcpiPlaces places)
    {
        List<byte[]> script =
        [
            AllocateFile(RsdpName, 16, LowMemory),
            AllocateFile(TablesName, 64, HighMemory),
            Pointer(TablesName, (uint)places.Fadt + FadtDsdt),
        ];
        for (int i = 0; i < places.Listed; i++)
        {
            script.Add(Pointer(TablesName, (uint)places.Xsdt + AcpiTable.HeaderLength + ((uint)i * 8)));
        }

        foreach (int table in (ReadOnlySpan<int>)[(int)places.Fadt, (int)places.Xsdt])
        {
            uint length = BinaryPrimitives.ReadUInt32LittleEndian(tables.AsSpan(table + 4));
            tables[table + TableChecksum] = 0; // a sum over a file has the sum itself in it
            script.Add(Checksum(TablesName, (uint)table + TableChecksum, (uint)table, length));
        }

        rsdp[RsdpChecksum] = rsdp[RsdpExtendedChecksum] = 0;
        script.Add(Pointer(RsdpName, RsdpXsdt));
        script.Add(Checksum(RsdpName, RsdpChecksum, 0, RsdpFirstBytes));
        script.Add(Checksum(RsdpName, RsdpExtendedChecksum, 0, (uint)rsdp.Length));
        return new AcpiFiles(rsdp, tables, [.. script.SelectMany(command => command)]);
    }

    private static byte[] AllocateFile(string file, uint alignment, byte zone)
    {
        byte[] command = Command(Allocate, file);
        BinaryPrimitives.WriteUInt32LittleEndian(command.AsSpan(4 + NameBytes), alignment);
        command[8 + NameBytes] = zone;
        return command;
    }

    /// <summary>Eight bytes of a file that point into the tables.</summary>
    private static byte[] Pointer(string file, uint offset)
    {
        byte[] command = Command(AddPointer, file);
        Encoding.ASCII.GetBytes(TablesName, command.AsSpan(4 + NameBytes));
        BinaryPrimitives.WriteUInt32LittleEndian(command.AsSpan(4 + (2 * NameBytes)), offset);
        command[8 + (2 * NameBytes)] = 8;
        return command;
    }

    private static byte[] Checksum(string file, uint result, uint start, uint length)
    {
        byte[] command = Command(AddChecksum, file);
        Span<byte> fields = command.AsSpan(4 + NameBytes);
        BinaryPrimitives.WriteUInt32LittleEndian(fields, result);
        BinaryPrimitives.WriteUInt32LittleEndian(fields[4..], start);
        BinaryPrimitives.WriteUInt32LittleEndian(fields[8..], length);
        return command;
    }

    private static byte[] Command(uint number, string file)
    {
        byte[] command = new byte[CommandBytes];
        BinaryPrimitives.WriteUInt32LittleEndian(command, number);
        Encoding.ASCII.GetBytes(file, command.AsSpan(4));
        return command;
    }
}
