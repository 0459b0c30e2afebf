using Vmm.Cpu;
using Vmm.Interop;
using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>The processor that this host's KVM can show to guests, and descriptions in KVM's form.</summary>
public static class HostCpu
{
    private const uint SignificantIndex = 1; // KVM_CPUID_FLAG_SIGNIFCANT_INDEX

    /// <summary>Everything that KVM supports here: KVM_GET_SUPPORTED_CPUID and the feature MSRs.</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public static CpuDescription Describe(KvmSystem system) => Describe(system.GetSupportedCpuid(), system.GetFeatureMsrs());

    /// <summary>The same from what KVM has answered already.</summary>
    public static CpuDescription Describe(ReadOnlySpan<KvmCpuidEntry> supported, ReadOnlySpan<KvmMsrEntry> msrs)
    {
        CpuidLeaf[] leaves = new CpuidLeaf[supported.Length];
        for (int i = 0; i < leaves.Length; i++)
        {
            KvmCpuidEntry entry = supported[i];
            leaves[i] = new CpuidLeaf(
                entry.Function, entry.Index, (entry.Flags & SignificantIndex) != 0, entry.Eax, entry.Ebx, entry.Ecx, entry.Edx);
        }

        CpuMsr[] values = new CpuMsr[msrs.Length];
        for (int i = 0; i < values.Length; i++)
        {
            values[i] = new CpuMsr(msrs[i].Index, msrs[i].Data);
        }

        return new CpuDescription { Model = CpuModel.Host, Leaves = leaves, Msrs = values };
    }

    /// <summary>The leaves as KVM_SET_CPUID2 takes them.</summary>
    public static KvmCpuidEntry[] Cpuid(CpuDescription description)
    {
        KvmCpuidEntry[] entries = new KvmCpuidEntry[description.Leaves.Count];
        for (int i = 0; i < entries.Length; i++)
        {
            CpuidLeaf leaf = description.Leaves[i];
            entries[i] = new KvmCpuidEntry
            {
                Function = leaf.Leaf,
                Index = leaf.Subleaf,
                Flags = leaf.HasSubleaves ? SignificantIndex : 0,
                Eax = leaf.Eax,
                Ebx = leaf.Ebx,
                Ecx = leaf.Ecx,
                Edx = leaf.Edx,
            };
        }

        return entries;
    }

    /// <summary>
    /// The feature MSRs that a guest can read, to be written into each vCPU after its CPUID: IA32_ARCH_CAPABILITIES, when CPUID announces
    /// it.
    /// </summary>
    public static KvmMsrEntry[] FeatureMsrs(CpuDescription description)
    {
        const uint leafOfBit = 7;
        const uint archCapabilities = 1u << 29; // EDX
        if (description.Find(leafOfBit, 0) is not { } leaf || (leaf.Edx & archCapabilities) == 0)
        {
            return [];
        }

        foreach (CpuMsr msr in description.Msrs)
        {
            if (msr.Index == CpuFeatures.ArchCapabilitiesMsr)
            {
                return [new KvmMsrEntry { Index = msr.Index, Data = msr.Value }];
            }
        }

        return [];
    }
}
