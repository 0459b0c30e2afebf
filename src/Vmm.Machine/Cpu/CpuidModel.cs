using Vmm.Interop.Kvm;

namespace Vmm.Machine.Cpu;

/// <summary>
/// The CPUID a vCPU sees: what this KVM supports, with the leaves that speak of topology rewritten for <see cref="CpuTopology"/>.
/// Sources: Intel SDM vol. 2A CPUID; AMD APM vol. 3 appendix E.
/// </summary>
public static class CpuidModel
{
    private const uint SignificantIndex = 1; // KVM_CPUID_FLAG_SIGNIFCANT_INDEX

    /// <summary>Builds the table for one vCPU from KVM_GET_SUPPORTED_CPUID.</summary>
    public static KvmCpuidEntry[] Build(ReadOnlySpan<KvmCpuidEntry> supported, CpuTopology topology, VcpuPlace vcpu, bool tscDeadline)
    {
        List<KvmCpuidEntry> entries = new(supported.Length + 8);
        bool amd = false;
        uint maxLeaf = 0;
        foreach (ref readonly KvmCpuidEntry source in supported)
        {
            KvmCpuidEntry entry = source;
            switch (entry.Function)
            {
                case 0x0:
                    maxLeaf = Math.Max(entry.Eax, 0xB);
                    entry.Eax = maxLeaf;
                    amd = entry.Ebx is 0x68747541 or 0x6F677948; // "Auth"enticAMD, "Hygo"nGenuine
                    break;
                case 0x1:
                    Features(ref entry, topology, vcpu, tscDeadline);
                    break;
                case 0x4:
                    CacheSharing(ref entry, topology);
                    break;
                case 0xB or 0x1F:
                    continue; // written below
                case 0x8000_0001:
                    entry.Ecx &= ~(1u << 22); // TOPOEXT: its leaf 0x8000001E would describe the host's nodes
                    entry.Ecx = topology.CoresPerPackage > 1 ? entry.Ecx | 2 : entry.Ecx & ~2u; // CmpLegacy
                    break;
                case 0x8000_0008:
                    entry.Ecx = amd ? ((uint)topology.CoreBits << 12) | (uint)(topology.CoresPerPackage - 1) : 0;
                    break;
                case 0x8000_001D or 0x8000_001E:
                    continue;
                default:
                    break;
            }

            entries.Add(entry);
        }

        AddExtendedTopology(entries, 0xB, topology, vcpu);
        if (maxLeaf >= 0x1F)
        {
            AddExtendedTopology(entries, 0x1F, topology, vcpu);
        }

        return [.. entries];
    }

    /// <summary>Width of guest physical addresses: CPUID 0x80000008 EAX[7:0], 36 when the leaf is missing.</summary>
    public static int PhysicalAddressBits(ReadOnlySpan<KvmCpuidEntry> supported)
    {
        foreach (ref readonly KvmCpuidEntry entry in supported)
        {
            if (entry.Function == 0x8000_0008)
            {
                return (int)(entry.Eax & 0xFF);
            }
        }

        return 36;
    }

    private static void Features(ref KvmCpuidEntry entry, CpuTopology topology, VcpuPlace vcpu, bool tscDeadline)
    {
        entry.Ebx = (entry.Ebx & 0xFFFF) | (Math.Min(vcpu.ApicId, 255) << 24) | ((uint)Math.Min(topology.CoresPerPackage, 255) << 16);
        entry.Ecx |= 1u << 31; // hypervisor present
        entry.Ecx |= 1u << 21; // x2APIC, which the in-kernel LAPIC has
        entry.Ecx = tscDeadline ? entry.Ecx | (1u << 24) : entry.Ecx & ~(1u << 24);
        entry.Edx = topology.CoresPerPackage > 1 ? entry.Edx | (1u << 28) : entry.Edx & ~(1u << 28); // HTT: EBX[23:16] is valid
    }

    private static void CacheSharing(ref KvmCpuidEntry entry, CpuTopology topology)
    {
        uint type = entry.Eax & 0x1F;
        if (type == 0)
        {
            return;
        }

        // The last level is shared by the package, the others belong to one vCPU.
        uint level = (entry.Eax >> 5) & 7;
        uint sharing = level >= 3 ? (uint)(topology.CoresPerPackage - 1) : 0;
        entry.Eax = (entry.Eax & 0x3FFF) | (sharing << 14) | ((uint)(topology.CoresPerPackage - 1) << 26);
    }

    private static void AddExtendedTopology(List<KvmCpuidEntry> entries, uint leaf, CpuTopology topology, VcpuPlace vcpu)
    {
        entries.Add(Level(leaf, 0, 0, 1, type: 1, vcpu)); // SMT: one thread per core
        entries.Add(Level(leaf, 1, (uint)topology.CoreBits, (uint)topology.CoresPerPackage, type: 2, vcpu)); // core
        entries.Add(Level(leaf, 2, 0, 0, type: 0, vcpu)); // end
    }

    private static KvmCpuidEntry Level(uint leaf, uint index, uint shift, uint processors, uint type, VcpuPlace vcpu) => new()
    {
        Function = leaf,
        Index = index,
        Flags = SignificantIndex,
        Eax = shift,
        Ebx = processors,
        Ecx = index | (type << 8),
        Edx = vcpu.ApicId,
    };
}
