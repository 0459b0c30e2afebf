using System.Buffers.Binary;
using System.Diagnostics;
using System.Text;
using System.Text.RegularExpressions;
using Vmm.Devices.Acpi;
using Vmm.Memory;

namespace Vmm.Devices.Tests.Acpi;

/// <summary>The tables as an independent reader and iasl see them.</summary>
public sealed class AcpiTableTests
{
    private const ulong Base = 0xE0000;
    private const int Room = 0x20000;

    [Fact]
    public void Rsdp_leads_to_tables_with_right_lengths_and_checksums()
    {
        byte[] image = AcpiTables.Build(Config(4, 2), new GuestAddress(Base), Room);
        Assert.Equal("RSD PTR ", Encoding.ASCII.GetString(image, 0, 8));
        Assert.Equal(0, Sum(image.AsSpan(0, 20)));
        Assert.Equal(0, Sum(image.AsSpan(0, 36)));
        Assert.Equal(["APIC", "DSDT", "FACP", "MCFG", "SLIT", "SPCR", "SRAT", "XSDT"], Tables(image).Keys.Order(StringComparer.Ordinal));
        Assert.All(Tables(image).Values, table => Assert.Equal(0, Sum(table)));
    }

    [Fact]
    public void Srat_slit_and_madt_agree_with_random_topologies()
    {
        Random random = new(20261123);
        for (int round = 0; round < 100; round++)
        {
            AcpiConfig config = Config(random.Next(1, 65), random.Next(1, 9), random);
            Dictionary<string, byte[]> tables = Tables(AcpiTables.Build(config, new GuestAddress(Base), Room));
            List<(uint Apic, uint Node)> cpus = [];
            List<(ulong Start, ulong Length, uint Node)> memory = [];
            foreach (byte[] entry in Entries(tables["SRAT"], 48))
            {
                if (entry[0] == 0)
                {
                    cpus.Add((entry[3], entry[2] | ((uint)entry[9] << 8)));
                }
                else if (entry[0] == 1)
                {
                    memory.Add((U64(entry, 8), U64(entry, 16), U32(entry, 2)));
                }
            }

            Assert.Equal(config.Processors.Select(p => (p.ApicId, (uint)p.Vnode)), cpus);
            Assert.Equal(config.Memory.Select(m => (m.Start.Value, m.Length, (uint)m.Vnode)), memory);
            Assert.Equal(
                config.Processors.Select(p => p.ApicId), Entries(tables["APIC"], 44).Where(e => e[0] == 0).Select(e => (uint)e[3]));
            byte[] slit = tables["SLIT"];
            Assert.Equal((ulong)config.Distances!.Count, U64(slit, 36));
            Assert.Equal(config.Distances.SelectMany(row => row).Select(d => (byte)d), slit[44..]);
        }
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(2, 2)]
    [InlineData(8, 4)]
    [InlineData(300, 3)]
    public void Iasl_decompiles_every_table_and_recompiles_the_dsdt_without_errors(int cpus, int vnodes)
    {
        string folder = Directory.CreateTempSubdirectory("vmm-acpi-").FullName;
        try
        {
            foreach ((string name, byte[] table) in Tables(AcpiTables.Build(Config(cpus, vnodes), new GuestAddress(Base), Room)))
            {
                string file = Path.Combine(folder, name + ".dat");
                File.WriteAllBytes(file, table);
                Complain(Iasl(folder, "-d", file), name);
            }

            string compiled = Iasl(folder, Path.Combine(folder, "DSDT.dsl"));
            Assert.Contains("0 Errors", compiled, StringComparison.Ordinal);
            string source = File.ReadAllText(Path.Combine(folder, "DSDT.dsl"));
            Assert.Contains("Notify (PWRB, 0x80)", source, StringComparison.Ordinal);
            CheckRoutes(source);
            Assert.Contains("\"ACPI0013\"", source, StringComparison.Ordinal);
            Assert.Contains("EisaId (\"PNP0303\")", source, StringComparison.Ordinal);
            Assert.Contains("\\_SB.PCI0.HSCN ()", source, StringComparison.Ordinal);
            // hotplug's: held until the guest looked
            Assert.Contains("Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive", source, StringComparison.Ordinal);
            Assert.Contains("HEJT = 0x80000000", source, StringComparison.Ordinal);
            Assert.Contains("\\_SB.PCI0.S30.HSCN ()", source, StringComparison.Ordinal);
            Assert.Contains("\\_SB.PCI0.S31.HSCN ()", source, StringComparison.Ordinal);
            foreach (string port in (string[])["0x0620", "0x0630", "0x0640"])
            {
                Assert.Contains($"OperationRegion (HPRG, SystemIO, {port}, 0x10)", source, StringComparison.Ordinal);
            }

            int[] numbers = [.. Regex.Matches(source, @"Name \(_SUN, (\w+)\)").Select(m => m.Groups[1].Value).Select(v => v switch
            {
                "Zero" => 0,
                "One" => 1,
                _ => Convert.ToInt32(v, 16),
            })];
            Assert.Equal(numbers.Distinct(), numbers);
            Assert.Equal(2, Count(source, "\"LNRO0005\""));
            Assert.Contains("0xFEB00200,         // Address Base", source, StringComparison.Ordinal);
            Assert.Equal(2, Count(source, "Device (S02)")); // behind the bridges; on bus 0 it stays
            Assert.Equal((28 + 32 + 31, 28 + 32 + 31), (Count(source, "Method (_EJ0"), Count(source, ", 0x03) // Eject Request")));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [Fact]
    public void Fadt_names_the_reset_register_and_the_pm_timer()
    {
        byte[] fadt = Tables(AcpiTables.Build(Config(1, 1), new GuestAddress(Base), Room))["FACP"];
        Assert.Equal((1u << 20) | (1u << 10) | (1u << 8), U32(fadt, 112) & ((1u << 20) | (1u << 10) | (1u << 8)));
        Assert.Equal([1, 8, 0, 1], fadt[116..120]);
        Assert.Equal((0xCF9UL, 6), (U64(fadt, 120), fadt[128]));
        Assert.Equal((0x608u, 4), (U32(fadt, 76), fadt[91]));
        Assert.Equal(0b110, fadt[109]); // a keyboard controller, no VGA
        Assert.Equal([1, 32, 0, 3], fadt[208..212]);
        Assert.Equal(0x608UL, U64(fadt, 212));
    }

    [Fact]
    public void Dsdt_names_panic_device_and_generation_id_when_they_exist()
    {
        string with = Encoding.Latin1.GetString(Tables(AcpiTables.Build(Config(1, 1), new GuestAddress(Base), Room))["DSDT"]);
        string without = Encoding.Latin1.GetString(
            Tables(AcpiTables.Build(Config(1, 1) with { PvPanic = false, GenerationId = null }, new GuestAddress(Base), Room))["DSDT"]);
        foreach (string id in (string[])["QEMU0001", "VM_Gen_Counter", "ADDR"])
        {
            Assert.Contains(id, with, StringComparison.Ordinal);
            Assert.DoesNotContain(id, without, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Tables_that_do_not_fit_are_refused_with_the_numbers()
    {
        ArgumentException error = Assert.Throws<ArgumentException>(() => AcpiTables.Build(Config(4000, 4), new GuestAddress(Base), Room));
        Assert.Contains("there is room for 131072", error.Message, StringComparison.Ordinal);
    }

    /// <summary>Every pin of every slot but the host bridge's, as iasl reads the package.</summary>
    private static void CheckRoutes(string source)
    {
        string flat = Regex.Replace(source[source.IndexOf("_PRT", StringComparison.Ordinal)..], @"//[^\n]*|\s", "");
        int slot = 1, pin = 0;
        const string pattern = "Package\\(0x04\\)\\{(?:0x)?([0-9A-F]+),(Zero|One|0x02|0x03),Zero,0x([0-9A-F]+)\\}";
        foreach (Match route in Regex.Matches(flat, pattern))
        {
            Assert.Equal(((uint)slot << 16) | 0xFFFF, Convert.ToUInt32(route.Groups[1].Value, 16));
            Assert.Equal(((string[])["Zero", "One", "0x02", "0x03"])[pin], route.Groups[2].Value);
            Assert.Equal(20u + ((uint)(slot + pin) % 4 % 3), Convert.ToUInt32(route.Groups[3].Value, 16));
            (slot, pin) = pin == 3 ? (slot + 1, 0) : (slot, pin + 1);
        }

        Assert.Equal((32, 0), (slot, pin));
    }

    private static AcpiConfig Config(int cpus, int vnodes, Random? random = null) => new()
    {
        Processors = [.. Enumerable.Range(0, cpus).Select(i => new AcpiProcessor((uint)i, i % vnodes))],
        Memory = [.. Enumerable.Range(0, vnodes).Select(n => new AcpiMemory(new GuestAddress((ulong)n << 28), 1UL << 28, n))],
        Distances = [.. Enumerable.Range(0, vnodes).Select(
            from => (IReadOnlyList<int>)[.. Enumerable.Range(0, vnodes).Select(to => from == to ? 10 : random?.Next(11, 255) ?? 20)])],
        EcamBase = new GuestAddress(0xE000_0000),
        Window32Start = new GuestAddress(0xC000_0000),
        Window32Length = 0x2000_0000,
        PowerButtonGsi = 3,
        KeyboardGsi = 1,
        HotplugGsi = 23,
        IntxGsis = (20, 3),
        HotplugSlots = [0x3FFF_FFFA, 0xFFFF_FFFF, 0xFFFF_FFFE], // not 0, the host bridge, not 2, and not 30 and 31, bridges
        VirtioMmio =
        [
            new AcpiVirtioMmio(new GuestAddress(0xFEB0_0000), 0x200, 5), new AcpiVirtioMmio(new GuestAddress(0xFEB0_0200), 0x200, 6)
        ],
        Window64Start = new GuestAddress(1UL << 36),
        Window64Length = 1UL << 36,
        PvPanic = true,
        GenerationId = new GuestAddress(0xF_F000),
    };

    private static Dictionary<string, byte[]> Tables(byte[] image)
    {
        Dictionary<string, byte[]> tables = [];
        byte[] Table(ulong at)
        {
            int offset = (int)(at - Base);
            byte[] table = image.AsSpan(offset, (int)U32(image, offset + 4)).ToArray();
            tables.Add(Encoding.ASCII.GetString(table, 0, 4), table);
            return table;
        }

        byte[] xsdt = Table(U64(image, 24));
        for (int at = 36; at < xsdt.Length; at += 8)
        {
            byte[] table = Table(U64(xsdt, at));
            if (table[0] == (byte)'F')
            {
                Table(U64(table, 140)); // X_DSDT
            }
        }

        return tables;
    }

    private static IEnumerable<byte[]> Entries(byte[] table, int first)
    {
        for (int at = first; at < table.Length; at += table[at + 1])
        {
            yield return table[at..(at + table[at + 1])];
        }
    }

    private static int Count(string text, string part) => text.Split(part).Length - 1;

    private static string Iasl(string folder, params string[] arguments)
    {
        ProcessStartInfo start =
            new("iasl") { WorkingDirectory = folder, RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false };
        foreach (string argument in arguments)
        {
            start.ArgumentList.Add(argument);
        }

        using Process process = Process.Start(start)!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        Assert.True(process.WaitForExit(60_000), "iasl does not end");
        string all = output + errors.Result;
        Assert.True(process.ExitCode == 0, all);
        return all;
    }

    private static void Complain(string output, string table) =>
        Assert.False(output.Contains("Error", StringComparison.Ordinal) || output.Contains("Warning", StringComparison.Ordinal),
            $"{table}: {output}");

    private static byte Sum(ReadOnlySpan<byte> bytes)
    {
        byte sum = 0;
        foreach (byte value in bytes)
        {
            sum = unchecked((byte)(sum + value));
        }

        return sum;
    }

    private static uint U32(byte[] bytes, int at) => BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(at));

    private static ulong U64(byte[] bytes, int at) => BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(at));
}
