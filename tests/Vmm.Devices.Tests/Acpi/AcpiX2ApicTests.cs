using System.Buffers.Binary;
using System.Text;
using Vmm.Devices.Acpi;
using Vmm.Memory;

namespace Vmm.Devices.Tests.Acpi;

/// <summary>Processors whose APIC id does not fit a byte, and memory that may come: entry by entry against the configuration.</summary>
public sealed class AcpiX2ApicTests
{
    private const ulong Base = 0xE0000;

    [Fact]
    public void Madt_and_srat_use_x2apic_entries_exactly_from_id_255_up()
    {
        AcpiConfig config = Config([.. Enumerable.Range(0, 300).Select(i => new AcpiProcessor((uint)(i * 2), i % 3))]);
        byte[] image = AcpiTables.Build(config, new GuestAddress(Base), 0x20000);
        List<(uint Apic, uint Uid)> madt = [];
        foreach (byte[] e in Entries(Table(image, "APIC"), 44))
        {
            if (e[0] == 0)
            {
                Assert.True(e[3] < 255);
                madt.Add((e[3], e[2]));
                Assert.Equal(1u, U32(e, 4));
            }
            else if (e[0] == 9)
            {
                Assert.True(U32(e, 4) >= 255);
                madt.Add((U32(e, 4), U32(e, 12)));
                Assert.Equal(1u, U32(e, 8));
            }
        }

        Assert.Equal(config.Processors.Select((p, i) => (p.ApicId, (uint)i)), madt);

        List<(uint Apic, uint Node)> srat = [];
        foreach (byte[] e in Entries(Table(image, "SRAT"), 48))
        {
            if (e[0] == 0)
            {
                srat.Add((e[3], e[2]));
                Assert.Equal(1u, U32(e, 4));
            }
            else if (e[0] == 2)
            {
                Assert.True(U32(e, 8) >= 255);
                srat.Add((U32(e, 8), U32(e, 4)));
                Assert.Equal(1u, U32(e, 12));
            }
        }

        Assert.Equal(config.Processors.Select(p => (p.ApicId, (uint)p.Vnode)), srat);
    }

    [Fact]
    public void Hot_pluggable_memory_is_marked_and_other_memory_is_not()
    {
        AcpiConfig config = Config([new AcpiProcessor(0, 0)]) with
        {
            Memory = [new(new GuestAddress(0), 1 << 28, 0), new(new GuestAddress(1UL << 32), 1UL << 33, 2, HotPluggable: true)],
        };
        byte[][] memory = [.. Entries(Table(AcpiTables.Build(config, new GuestAddress(Base), 0x20000), "SRAT"), 48).Where(e => e[0] == 1)];
        Assert.Equal([1u, 3u], memory.Select(e => U32(e, 28)));
        Assert.Equal([0u, 2u], memory.Select(e => U32(e, 2)));
    }

    [Fact]
    public void Nmi_reaches_every_processor_and_irq_4_is_an_edge_on_gsi_4()
    {
        byte[][] entries = [.. Entries(
            Table(AcpiTables.Build(Config([new AcpiProcessor(0, 0)]), new GuestAddress(Base), 0x20000), "APIC"), 44)];
        byte[] irq4 = Assert.Single(entries, e => e[0] == 2);
        Assert.Equal((0, 4, 4u, 5), (irq4[2], irq4[3], U32(irq4, 4), BinaryPrimitives.ReadUInt16LittleEndian(irq4.AsSpan(8))));
        byte[] nmi = Assert.Single(entries, e => e[0] == 4);
        Assert.Equal((0xFF, 1), (nmi[2], nmi[5]));
    }

    [Fact]
    public void Fadt_is_a_hardware_reduced_one_with_sleep_and_reset_ports_and_no_fixed_hardware_but_the_pm_timer()
    {
        byte[] fadt = Table(
            AcpiTables.Build(Config([new AcpiProcessor(0, 0)]) with { PowerPort = 0x680 }, new GuestAddress(Base), 0x20000), "FACP");
        Assert.Equal((276, 6, 3), (fadt.Length, fadt[8], fadt[131]));
        Assert.Equal(1u << 20, U32(fadt, 112) & (1u << 20)); // HW_REDUCED_ACPI
        Assert.Equal(1u << 10, U32(fadt, 112) & (1u << 10)); // RESET_REG_SUP
        Assert.Equal((6, 0xCF9UL), (fadt[128], U64(fadt, 120)));
        Assert.Equal((0x680UL, 0x681UL), (U64(fadt, 248), U64(fadt, 260)));
        Assert.Equal((0x608u, 4, 0x608UL), (U32(fadt, 76), fadt[91], U64(fadt, 212)));
        // SCI, SMI and every other 32-bit block
        Assert.All((byte[])[.. fadt[46..76], .. fadt[80..91], .. fadt[92..108]], b => Assert.Equal(0, b));
        Assert.All((byte[])[.. fadt[148..208], .. fadt[220..244]], b => Assert.Equal(0, b));                 // every other extended block
    }

    private static AcpiConfig Config(AcpiProcessor[] processors) => new()
    {
        Processors = processors,
        Memory = [new(new GuestAddress(0), 1 << 28, 0)],
        Distances = [[10, 20, 30], [20, 10, 20], [30, 20, 10]],
        EcamBase = new GuestAddress(0xE000_0000),
        Window32Start = new GuestAddress(0xC000_0000),
        Window32Length = 0x2000_0000,
    };

    private static byte[] Table(byte[] image, string signature)
    {
        int xsdt = (int)(U64(image, 24) - Base);
        for (int at = xsdt + 36; at < xsdt + (int)U32(image, xsdt + 4); at += 8)
        {
            int table = (int)(U64(image, at) - Base);
            if (Encoding.ASCII.GetString(image, table, 4) == signature)
            {
                return image.AsSpan(table, (int)U32(image, table + 4)).ToArray();
            }
        }

        throw new InvalidOperationException($"no {signature} in the XSDT");
    }

    private static IEnumerable<byte[]> Entries(byte[] table, int first)
    {
        for (int at = first; at < table.Length; at += table[at + 1])
        {
            yield return table[at..(at + table[at + 1])];
        }
    }

    private static uint U32(byte[] bytes, int at) => BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(at));

    private static ulong U64(byte[] bytes, int at) => BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(at));
}
