using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;
using Vmm.Devices.Smbios;
using Vmm.Memory;

namespace Vmm.Devices.Tests.Smbios;

/// <summary>dmidecode reads the tables, and every text of the spec comes out of it as it went in.</summary>
public sealed class SmbiosTablesTests
{
    private const ulong Start = 32; // where a dump of dmidecode has the structures

    [Fact]
    public void Dmidecode_reads_every_structure_of_a_machine_that_starts_directly()
    {
        string text = Decode(Machine() with { HasBios = true });
        foreach (string line in (string[])["SMBIOS 3.0.0 present", "Vendor: Vmm",
            "System is a virtual machine", "Manufacturer: ACME; Inc.",
            "Product Name: Rocket", "Version: 7",
            "Serial Number: ds=nocloud;s=http://198.51.100.1:8000/", "SKU Number: 12-34", "Family: Heavy",
            "UUID: 6b29fc40-ca47-1067-b31d-00dd010662da", "Wake-up Type: Power Switch",
            "Socket Designation: CPU 1", "Manufacturer: AuthenticAMD",
            "Version: EPYC of a test", "ID: 12 06 A0 00 FF FB 8B 17", "Core Count: 2", "Thread Count: 4", "64-bit capable",
            "String 1: io.systemd.credential:a=b", "String 2: x", "Number Of Devices: 2", "Maximum Capacity: 5 GB",
            "Size: 4 GB", "Size: 1 GB",
            "Bank Locator: node 1", "Starting Address: 0x00100000000", "Ending Address: 0x0017FFFFFFF", "Status: No errors detected",
            "End Of Table"])
        {
            Assert.Contains(line, text, StringComparison.Ordinal);
        }

        Assert.Equal(2, Regex.Count(text, "^Processor Information", RegexOptions.Multiline));
        Assert.Equal(3, Regex.Count(text, "^Memory Array Mapped Address", RegexOptions.Multiline));
    }

    [Fact]
    public void What_is_not_said_is_not_specified_and_firmware_speaks_for_itself()
    {
        string text = Decode(Machine() with
        {
            Manufacturer = null,
            Serial = "",
            Uuid = Guid.Empty,
            OemStrings = [],
            Processor = new SmbiosProcessor("", "", 0),
        });
        Assert.Contains("Manufacturer: Not Specified", text, StringComparison.Ordinal);
        Assert.Contains("Serial Number: Not Specified", text, StringComparison.Ordinal);
        Assert.Contains("UUID: Not Settable", text, StringComparison.Ordinal);
        Assert.DoesNotContain("BIOS Information", text, StringComparison.Ordinal);
        Assert.DoesNotContain("OEM Strings", text, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(64, 1024)]
    public void Machines_of_every_size_are_described_whole(int vnodes, int threads)
    {
        const ulong wide = 16UL << 40;
        SmbiosConfig machine = Machine() with
        {
            Packages = [.. Enumerable.Range(0, vnodes).Select(_ => new SmbiosPackage(threads, threads))],
            Memory = [.. Enumerable.Range(0, vnodes)
                .Select(i => new SmbiosMemory(new GuestAddress((ulong)i * wide), new ByteSize(wide), i))],
            OemStrings = [.. Enumerable.Repeat(new string('x', 1024), 32)],
        };
        string text = Decode(machine);
        Assert.Contains(string.Create(CultureInfo.InvariantCulture, $"Thread Count: {threads}"), text, StringComparison.Ordinal);
        Assert.Contains("Size: 16 TB", text, StringComparison.Ordinal);
        Assert.Equal(vnodes, Regex.Count(text, "^Memory Device", RegexOptions.Multiline));
        Assert.Equal(32, Regex.Count(text, @"String \d+: x{1024}\n"));
    }

    [Fact]
    public void A_text_cannot_end_its_structure_or_begin_another()
    {
        string text = Decode(Machine() with { Serial = "a\0\0\u007f\u0004b\n\u00e9" });
        Assert.Contains("Serial Number: a????b??", text, StringComparison.Ordinal);
        Assert.Contains("End Of Table", text, StringComparison.Ordinal);
    }

    private static SmbiosConfig Machine() => new()
    {
        Manufacturer = "ACME; Inc.",
        Product = "Rocket",
        Version = "7",
        Serial = "ds=nocloud;s=http://198.51.100.1:8000/",
        Sku = "12-34",
        Family = "Heavy",
        Uuid = Guid.Parse("6b29fc40-ca47-1067-b31d-00dd010662da"),
        OemStrings = ["io.systemd.credential:a=b", "x"],
        Packages = [new SmbiosPackage(2, 4), new SmbiosPackage(2, 4)],
        Processor = new SmbiosProcessor("AuthenticAMD", "EPYC of a test", 0x178B_FBFF_00A0_0612),
        Memory =
        [
            new SmbiosMemory(new GuestAddress(0), ByteSize.GiB(3), 0), new SmbiosMemory(new GuestAddress(4UL << 30), ByteSize.GiB(1), 0),
            new SmbiosMemory(new GuestAddress(5UL << 30), ByteSize.GiB(1), 1),
        ],
    };

    private static string Decode(SmbiosConfig machine)
    {
        byte[] tables = SmbiosTables.Build(machine), dump = new byte[(int)Start + tables.Length];
        SmbiosTables.Anchor(tables, Start).CopyTo(dump, 0);
        tables.CopyTo(dump, (int)Start);
        string file = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(file, dump);
            ProcessStartInfo start = new("dmidecode", ["--from-dump", file])
            {
                UseShellExecute = false,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            };
            using Process dmidecode = Process.Start(start)!;
            Task<string> errors = dmidecode.StandardError.ReadToEndAsync();
            string text = dmidecode.StandardOutput.ReadToEnd();
            dmidecode.WaitForExit();
            Assert.Equal((0, ""), (dmidecode.ExitCode, errors.Result));
            foreach (string complaint in (string[])["<BAD INDEX>", "<TRUNCATED>", "OUT OF SPEC", "Wrong", "roken", "Invalid"])
            {
                Assert.DoesNotContain(complaint, text, StringComparison.Ordinal);
            }

            return text;
        }
        finally
        {
            File.Delete(file);
        }
    }
}
