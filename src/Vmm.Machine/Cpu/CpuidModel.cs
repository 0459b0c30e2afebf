using Vmm.Cpu;
using Vmm.Interop.Kvm;

namespace Vmm.Machine.Cpu;

/// <summary>
/// The CPUID a vCPU sees: what its processor shows, with the leaves that speak of topology rewritten for <see cref="CpuTopology"/>.
/// Sources: Intel SDM vol. 2A CPUID; AMD APM vol. 3 appendix E.
/// </summary>
public static class CpuidModel
{
    private const uint SignificantIndex = 1; // KVM_CPUID_FLAG_SIGNIFCANT_INDEX

    private const uint MsiExtendedDestinations = 1 << 15; // KVM_FEATURE_MSI_EXT_DEST_ID

    /// <summary>Builds the table for one vCPU from the leaves of its processor.</summary>
    /// <param name="supported">What its processor shows (<see cref="GuestCpu"/>), apart from the topology.</param>
    /// <param name="topology">How the vCPUs are packed.</param>
    /// <param name="vcpu">Where this one is.</param>
    /// <param name="tscDeadline">The local APIC has the TSC-deadline timer.</param>
    /// <param name="brand">The processor's name as leaves 0x80000002 to 0x80000004 have it (<see cref="ProcessorBrand"/>), 12 words: KVM
    /// leaves them zero. Empty for none.</param>
    public static KvmCpuidEntry[] Build(
        ReadOnlySpan<KvmCpuidEntry> supported, CpuTopology topology, VcpuPlace vcpu, bool tscDeadline, ReadOnlySpan<uint> brand = default)
    {
        List<KvmCpuidEntry> entries = new(supported.Length + 8);
        bool amd = false;
        uint maxLeaf = 0;
        foreach (ref readonly KvmCpuidEntry source in supported)
        {
            if (IsLeftOut(source.Function, topology))
            {
                continue;
            }

            KvmCpuidEntry entry = source;
            if (entry.Function == 0)
            {
                entry.Eax = maxLeaf = Math.Max(entry.Eax, topology.Shape.Dies > 1 ? 0x1Fu : 0xB);
                amd = entry.Ebx is 0x68747541 or 0x6F677948; // "Auth"enticAMD, "Hygo"nGenuine
            }

            Rewrite(ref entry, topology, vcpu, tscDeadline, amd);
            entries.Add(entry);
        }

        AddExtendedTopology(entries, 0xB, topology, vcpu, dies: false);
        if (maxLeaf >= 0x1F)
        {
            AddExtendedTopology(entries, 0x1F, topology, vcpu, topology.Shape.Dies > 1);
        }

        AddBrand(entries, brand);
        return [.. entries];
    }

    /// <summary>Leaves that are written anew, and AMD's topology leaves where the guest is shown no topology.</summary>
    private static bool IsLeftOut(uint leaf, CpuTopology topology) => leaf switch
    {
        0xB or 0x1F or 0x8000_0002 or 0x8000_0003 or 0x8000_0004 => true,
        0x8000_001D or 0x8000_001E => !topology.Asked,
        _ => false
    };

    /// <summary>What a leaf says of the topology and of this vCPU.</summary>
    private static void Rewrite(ref KvmCpuidEntry entry, CpuTopology topology, VcpuPlace vcpu, bool tscDeadline, bool amd)
    {
        switch (entry.Function)
        {
            case 0x1:
                Features(ref entry, topology, vcpu, tscDeadline);
                break;
            case 0x4 or 0x8000_001D:
                CacheSharing(ref entry, topology);
                break;
            case CpuFeatures.KvmFeatureLeaf when topology.HasWideApicIds:
                entry.Eax |= MsiExtendedDestinations;
                break;
            case 0x8000_0001:
                // TOPOEXT: leaves 0x8000001D and 0x8000001E, which a topology of single-threaded cores does without.
                entry.Ecx = topology.Asked ? entry.Ecx : entry.Ecx & ~(1u << 22);
                entry.Ecx = topology.IdsPerPackage > 1 ? entry.Ecx | 2 : entry.Ecx & ~2u; // CmpLegacy
                break;
            case 0x8000_0008:
                entry.Ecx = amd ? ((uint)topology.PackageShift << 12) | (uint)(topology.IdsPerPackage - 1) : 0;
                break;
            case 0x8000_001E:
                Unit(ref entry, topology, vcpu);
                break;
            default:
                break;
        }
    }

    private static void AddBrand(List<KvmCpuidEntry> entries, ReadOnlySpan<uint> brand)
    {
        for (int i = 0; i + 4 <= brand.Length; i += 4)
        {
            entries.Add(new KvmCpuidEntry
            {
                Function = 0x8000_0002 + (uint)(i / 4),
                Eax = brand[i],
                Ebx = brand[i + 1],
                Ecx = brand[i + 2],
                Edx = brand[i + 3]
            });
        }
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
        entry.Ebx = (entry.Ebx & 0xFFFF) | (Math.Min(vcpu.ApicId, 255) << 24) | ((uint)Math.Min(topology.IdsPerPackage, 255) << 16);
        entry.Ecx |= 1u << 31; // hypervisor present
        entry.Ecx |= 1u << 21; // x2APIC, which the in-kernel LAPIC has
        entry.Ecx = tscDeadline ? entry.Ecx | (1u << 24) : entry.Ecx & ~(1u << 24);
        entry.Edx = topology.IdsPerPackage > 1 ? entry.Edx | (1u << 28) : entry.Edx & ~(1u << 28); // HTT: EBX[23:16] is valid
    }

    private static void CacheSharing(ref KvmCpuidEntry entry, CpuTopology topology)
    {
        uint type = entry.Eax & 0x1F;
        if (type == 0)
        {
            return;
        }

        // The last level is shared by the die, the others belong to one core.
        uint level = (entry.Eax >> 5) & 7;
        uint sharing = (1u << (level >= 3 ? topology.DieShift : topology.ThreadBits)) - 1;
        uint cores = (1u << (topology.PackageShift - topology.ThreadBits)) - 1;
        entry.Eax = (entry.Eax & 0x3FFF) | (sharing << 14) | (entry.Function == 4 ? Math.Min(cores, 63) << 26 : 0);
    }

    /// <summary>AMD's extended APIC id, core and node (APM vol. 3, E.4.15).</summary>
    private static void Unit(ref KvmCpuidEntry entry, CpuTopology topology, VcpuPlace vcpu)
    {
        uint core = (vcpu.ApicId & ((1u << topology.PackageShift) - 1)) >> topology.ThreadBits;
        entry.Eax = vcpu.ApicId;
        entry.Ebx = (core & 0xFF) | ((uint)(topology.Shape.Threads - 1) << 8);
        entry.Ecx = (uint)(vcpu.Die & 0xFF) | ((uint)Math.Min(topology.Shape.Dies - 1, 7) << 8);
        entry.Edx = 0;
    }

    /// <summary>
    /// Levels from the thread up: how far an APIC id is shifted to the number of the next level, and the processors below that. Leaf 0xB
    /// knows no dies.
    /// </summary>
    private static void AddExtendedTopology(List<KvmCpuidEntry> entries, uint leaf, CpuTopology topology, VcpuPlace vcpu, bool dies)
    {
        const uint Smt = 1, Core = 2, Die = 5;
        uint level = 0;
        entries.Add(Level(leaf, level++, topology.ThreadBits, topology.Shape.Threads, Smt, vcpu));
        if (dies)
        {
            entries.Add(Level(leaf, level++, topology.DieShift, topology.Shape.CpusOfDie, Core, vcpu));
        }

        entries.Add(Level(leaf, level++, topology.PackageShift, topology.Shape.CpusOfDie * topology.Shape.Dies, dies ? Die : Core, vcpu));
        entries.Add(Level(leaf, level, 0, 0, 0, vcpu)); // end
    }

    private static KvmCpuidEntry Level(uint leaf, uint index, int shift, int processors, uint type, VcpuPlace vcpu) => new()
    {
        Function = leaf,
        Index = index,
        Flags = SignificantIndex,
        Eax = (uint)shift,
        Ebx = (uint)processors,
        Ecx = index | (type << 8),
        Edx = vcpu.ApicId,
    };
}
