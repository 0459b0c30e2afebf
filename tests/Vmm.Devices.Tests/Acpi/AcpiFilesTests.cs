using System.Buffers.Binary;
using System.Text;
using Vmm.Devices.Acpi;
using Vmm.Memory;

namespace Vmm.Devices.Tests.Acpi;

/// <summary>A firmware's loader carries the script out: then every table is where its pointers say, with a sum of zero.</summary>
public sealed class AcpiFilesTests
{
    private const ulong RsdpAt = 0xF_5000, TablesAt = 0x7F12_3000;

    [Fact]
    public void The_script_makes_sound_tables_wherever_the_firmware_puts_them()
    {
        AcpiFiles files = AcpiTables.BuildFiles(Config(0xE000_0000, 0x8000_0000));
        Dictionary<string, (ulong At, byte[] Bytes)> memory = [];
        for (int at = 0; at < files.Script.Length; at += 128)
        {
            Carry(files, files.Script.AsSpan(at, 128), memory);
        }

        byte[] rsdp = memory[AcpiFiles.RsdpName].Bytes, tables = memory[AcpiFiles.TablesName].Bytes;
        Assert.Equal((0, 0), (AcpiTable.Checksum(rsdp.AsSpan(0, 20)), AcpiTable.Checksum(rsdp)));
        byte[] xsdt = Table(tables, BinaryPrimitives.ReadUInt64LittleEndian(rsdp.AsSpan(24)), "XSDT");
        List<string> found = [];
        for (int at = 36; at < xsdt.Length; at += 8)
        {
            byte[] table = Table(tables, BinaryPrimitives.ReadUInt64LittleEndian(xsdt.AsSpan(at)), signature: null);
            found.Add(Encoding.ASCII.GetString(table, 0, 4));
            if (found[^1] == "FACP")
            {
                _ = Table(tables, BinaryPrimitives.ReadUInt64LittleEndian(table.AsSpan(140)), "DSDT");
            }
        }

        Assert.Equal(["FACP", "APIC", "MCFG", "SPCR"], found);
    }

    [Fact]
    public void Another_place_of_ecam_changes_bytes_and_no_length()
    {
        AcpiFiles high = AcpiTables.BuildFiles(Config(0xE000_0000, 0x8000_0000));
        AcpiFiles low = AcpiTables.BuildFiles(Config(0xB000_0000, 0xC000_0000));
        Assert.Equal(high.Script, low.Script);
        Assert.Equal(high.Rsdp, low.Rsdp);
        Assert.Equal(high.Tables.Length, low.Tables.Length);
        Assert.NotEqual(high.Tables, low.Tables);
    }

    private static byte[] Table(byte[] tables, ulong at, string? signature)
    {
        int start = (int)(at - TablesAt), length = BinaryPrimitives.ReadInt32LittleEndian(tables.AsSpan(start + 4));
        byte[] table = tables[start..(start + length)];
        Assert.Equal(0, AcpiTable.Checksum(table));
        Assert.True(signature is null || Encoding.ASCII.GetString(table, 0, 4) == signature);
        return table;
    }

    // As edk2's QemuFwCfgAcpi does: a pointer holds an offset into the other file, to which that file's address is added.
    private static void Carry(AcpiFiles files, ReadOnlySpan<byte> command, Dictionary<string, (ulong At, byte[] Bytes)> memory)
    {
        string file = Name(command[4..]);
        ReadOnlySpan<byte> fields = command[60..];
        switch (BinaryPrimitives.ReadUInt32LittleEndian(command))
        {
            case 1:
                Assert.True(BinaryPrimitives.ReadUInt32LittleEndian(fields) <= 4096);
                memory.Add(file, file == AcpiFiles.RsdpName ? (RsdpAt, [.. files.Rsdp]) : (TablesAt, [.. files.Tables]));
                break;
            case 2:
                Span<byte> pointer = memory[file].Bytes.AsSpan((int)BinaryPrimitives.ReadUInt32LittleEndian(fields[56..]), 8);
                Assert.Equal(8, fields[60]);
                ulong offset = BinaryPrimitives.ReadUInt64LittleEndian(pointer);
                (ulong at, byte[] bytes) = memory[Name(fields)];
                Assert.True(offset < (ulong)bytes.Length);
                BinaryPrimitives.WriteUInt64LittleEndian(pointer, at + offset);
                break;
            case 3:
                Span<byte> whole = memory[file].Bytes;
                Span<byte> part = whole.Slice(
                    BinaryPrimitives.ReadInt32LittleEndian(fields[4..]), BinaryPrimitives.ReadInt32LittleEndian(fields[8..]));
                whole[BinaryPrimitives.ReadInt32LittleEndian(fields)] = AcpiTable.Checksum(part);
                break;
            default:
                Assert.Fail("no such command");
                break;
        }
    }

    private static string Name(ReadOnlySpan<byte> field) => Encoding.ASCII.GetString(field[..field.IndexOf((byte)0)]);

    private static AcpiConfig Config(ulong ecam, ulong window) => new()
    {
        Processors = [new AcpiProcessor(0, 0), new AcpiProcessor(1, 0)],
        Memory = [new AcpiMemory(new GuestAddress(0), 1UL << 28, 0)],
        EcamBase = new GuestAddress(ecam),
        Window32Start = new GuestAddress(window),
        Window32Length = 0x2000_0000,
        Window64Start = new GuestAddress(1UL << 36),
        Window64Length = 1UL << 36,
        PowerButtonGsi = 3,
        KeyboardGsi = 1,
        HotplugGsi = 23,
        HotplugSlots = [0x1FFF_FFFA, uint.MaxValue, uint.MaxValue],
        Face = Devices.Pci.PciFace.Q35,
    };
}
