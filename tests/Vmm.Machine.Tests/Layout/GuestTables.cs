using System.Buffers.Binary;
using System.Text;
using Vmm.Devices.Acpi;
using Vmm.Machine.Cpu;
using Vmm.Machine.Layout;
using Vmm.Spec;

namespace Vmm.Machine.Tests.Layout;

/// <summary>The ACPI tables of a spec, by signature, and the lines that the micro-guest numa.elf has to print of them.</summary>
internal static class GuestTables
{
    private const ulong Base = 0xE_0000;

    internal static Dictionary<string, byte[]> Of(VmSpec spec)
    {
        (MemoryMap map, CpuTopology topology) = Place(spec);
        byte[] image = AcpiTables.Build(
            AcpiTopology.Of(spec, map, topology, hotMemory: true) with
            {
                Initiators = [.. spec.Disks.Select((d, i) => new AcpiInitiator(0, (byte)(i + 1), d.Vnode!.Value))]
            }, new(Base),
            0x2_0000);
        Dictionary<string, byte[]> tables = new(StringComparer.Ordinal);
        byte[] Table(ulong at)
        {
            int offset = (int)(at - Base);
            byte[] table = image.AsSpan(offset, (int)BinaryPrimitives.ReadUInt32LittleEndian(image.AsSpan(offset + 4))).ToArray();
            tables.Add(Encoding.ASCII.GetString(table, 0, 4), table);
            return table;
        }

        byte[] xsdt = Table(BinaryPrimitives.ReadUInt64LittleEndian(image.AsSpan(24)));
        for (int at = 36; at < xsdt.Length; at += 8)
        {
            Table(BinaryPrimitives.ReadUInt64LittleEndian(xsdt.AsSpan(at)));
        }

        return tables;
    }

    /// <summary>What the spec says, as the guest prints it.</summary>
    internal static List<string> Expected(VmSpec spec)
    {
        (MemoryMap map, CpuTopology topology) = Place(spec);
        List<string> lines =
        [
            .. topology.Vcpus.Select(v => $"MADT apic={v.ApicId}"), .. topology.Vcpus.Select(v => $"CPU apic={v.ApicId} node={v.Vnode}")
        ];
        lines.AddRange(map.Ram.Select(r => $"MEM base=0x{r.Start.Value:x} len=0x{r.Length.Bytes:x} node={r.Vnode}"));
        lines.AddRange(spec.Disks.Select((d, i) => $"INIT pci=0:{i + 1}.0 node={d.Vnode}"));
        int n = spec.EffectiveVnodes.Count;
        lines.AddRange(from i in Enumerable.Range(0, n)
                       from j in Enumerable.Range(0, n)
                       select $"DIST {i} {j} {spec.Numa!.Distances?[i][j] ?? (i == j ? 10 : 20)}");
        if (spec.Numa!.Latencies is null && spec.Numa.Bandwidths is null)
        {
            return lines;
        }

        int[] targets = [.. Enumerable.Range(0, n).Where(i => spec.EffectiveVnodes[i].Memory > 0)], initiators = [.. Enumerable.Range(0, n)
            .Where(i => spec.EffectiveVnodes[i].Cpus.Count > 0 || spec.Disks.Any(d => d.Vnode == i))];
        lines.AddRange(targets.Select(t => $"HMAT target={t} initiator={(spec.EffectiveVnodes[t].Cpus.Count > 0 ? t : -1)}"));
        Values(spec.Numa.Latencies, 0, 1000);
        Values(spec.Numa.Bandwidths, 3, 1);
        return lines;

        void Values(IReadOnlyList<IReadOnlyList<int>>? matrix, int kind, long unit)
        {
            if (matrix is null)
            {
                return;
            }

            // so that 16 bits hold the greatest
            int scale = (initiators.SelectMany(i => targets.Select(j => matrix[i][j])).Max() + 0xFFFD) / 0xFFFE;
            lines.AddRange(from i in initiators
                           from j in targets
                           select $"HMAT kind={kind} from={i} to={j} value={Math.Max(1, matrix[i][j] / scale) * scale * unit}");
        }
    }

    /// <summary>The same lines, read from the tables here.</summary>
    internal static List<string> Walk(Dictionary<string, byte[]> tables)
    {
        List<string> lines = [];
        byte[] madt = tables["APIC"], srat = tables["SRAT"], slit = tables["SLIT"];
        for (int at = 44; at < madt.Length; at += madt[at + 1])
        {
            if (madt[at] is 0 or 9)
            {
                lines.Add($"MADT apic={(madt[at] == 0 ? madt[at + 3] : U32(madt, at + 4))}");
            }
        }

        List<string> memory = [], devices = [];
        for (int at = 48; at < srat.Length; at += srat[at + 1])
        {
            if (srat[at] == 0)
            {
                lines.Add($"CPU apic={srat[at + 3]} node={srat[at + 2] | (srat[at + 9] << 8)}");
            }
            else if (srat[at] == 1 && (U32(srat, at + 28) & 2) == 0)
            {
                memory.Add($"MEM base=0x{U64(srat, at + 8):x} len=0x{U64(srat, at + 16):x} node={U32(srat, at + 2)}");
            }
            else if (srat[at] == 5 && srat[at + 3] == 1 && srat[at + 24] == 1)
            {
                devices.Add($"INIT pci={srat[at + 10]}:{srat[at + 11] >> 3}.{srat[at + 11] & 7} node={U32(srat, at + 4)}");
            }
        }

        lines.AddRange(memory);
        lines.AddRange(devices);
        int n = (int)U64(slit, 36);
        lines.AddRange(Enumerable.Range(0, n * n).Select(i => $"DIST {i / n} {i % n} {slit[44 + i]}"));
        byte[] hmat = tables.GetValueOrDefault("HMAT", new byte[40]);
        for (int at = 40; at < hmat.Length; at += (int)U32(hmat, at + 4))
        {
            if (hmat[at] == 0)
            {
                int initiator = (hmat[at + 8] & 1) != 0 ? (int)U32(hmat, at + 12) : -1;
                lines.Add($"HMAT target={U32(hmat, at + 16)} initiator={initiator}");
                continue;
            }

            int rows = (int)U32(hmat, at + 12), columns = (int)U32(hmat, at + 16), entries = at + 32 + (4 * (rows + columns));
            lines.AddRange(
                from i in Enumerable.Range(0, rows)
                from j in Enumerable.Range(0, columns)
                select $"HMAT kind={hmat[at + 9]} from={U32(hmat, at + 32 + (4 * i))} to={U32(hmat, at + 32 + (4 * (rows + j)))} "
                    + "value="
                    + $"{BinaryPrimitives.ReadUInt16LittleEndian(hmat.AsSpan(entries + (2 * ((i * columns) + j)))) * U64(hmat, at + 24)}");
        }

        return lines;
    }

    private static (MemoryMap Map, CpuTopology Topology) Place(VmSpec spec)
    {
        IReadOnlyList<VnodeSpec> vnodes = spec.EffectiveVnodes;
        int[] vnodeOfVcpu = [.. Enumerable.Range(0, spec.Cpus)
            .Select(c => Enumerable.Range(0, vnodes.Count).First(k => vnodes[k].Cpus.Contains(c)))];
        CpuTopology topology = spec.Topology?.Shape(spec.Cpus, vnodes.Count(v => v.Cpus.Count > 0)) is { } shape
            ? CpuTopology.Create(vnodeOfVcpu, shape)
            : CpuTopology.Create(vnodeOfVcpu);
        return (MemoryMap.Create([.. vnodes.Select(v => v.BootMemory)], 40, [.. vnodes.Select(v => v.HotMemory)]), topology);
    }

    private static uint U32(byte[] bytes, int at) => BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(at));

    private static ulong U64(byte[] bytes, int at) => BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(at));
}
