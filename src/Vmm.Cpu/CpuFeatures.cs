using System.Collections.Frozen;

namespace Vmm.Cpu;

/// <summary>
/// The feature bits that have a name here. Names are Linux' (<c>arch/x86/include/asm/cpufeatures.h</c>), those of the KVM leaves are from
/// <c>Documentation/virt/kvm/x86/cpuid.rst</c>. A bit without a name is in no named model.
/// </summary>
public static class CpuFeatures
{
    /// <summary>The MSR IA32_ARCH_CAPABILITIES: what a processor is not vulnerable to.</summary>
    public const uint ArchCapabilitiesMsr = 0x10A;

    /// <summary>First leaf of KVM's own features.</summary>
    public const uint KvmSignatureLeaf = 0x4000_0000;

    /// <summary>KVM's own features (KVM_CPUID_FEATURES).</summary>
    public const uint KvmFeatureLeaf = 0x4000_0001;

    private static readonly CpuFeature[] s_all = Build();
    private static readonly FrozenDictionary<string, CpuFeature> s_byName = ByName();

    /// <summary>Every feature, register by register.</summary>
    public static IReadOnlyList<CpuFeature> All => s_all;

    /// <summary>
    /// The feature of this name. Other spellings are taken, too: <c>sse4.1</c>, <c>arch-capabilities</c>, <c>pni</c>, <c>lzcnt</c>.
    /// </summary>
    public static bool TryGet(string name, out CpuFeature feature)
    {
        string spelled = name.Replace('-', '_').Replace('.', '_');
        feature = s_byName.GetValueOrDefault(spelled)!;
        return feature is not null;
    }

    /// <summary>The feature of this name.</summary>
    /// <exception cref="ArgumentException">There is none.</exception>
    public static CpuFeature Get(string name) =>
        TryGet(name, out CpuFeature feature) ? feature : throw new ArgumentException($"\"{name}\" is no CPU feature", nameof(name));

    /// <summary>
    /// Features that the machine sets or that every guest needs: topology, interrupt controllers, what the boot protocol uses. No spec
    /// chooses them.
    /// </summary>
    public static bool IsFixed(CpuFeature feature) =>
        feature.IsMsr || feature.Name is "fpu" or "msr" or "pae" or "lm" or "apic" or "x2apic" or "tsc_deadline_timer"
            or "hypervisor" or "ht" or "cmp_legacy" or "topoext" or "osxsave" or "ospke" or "kvm_msi_ext_dest_id";

    private static FrozenDictionary<string, CpuFeature> ByName()
    {
        Dictionary<string, CpuFeature> names = new(StringComparer.Ordinal);
        foreach (CpuFeature feature in s_all)
        {
            names.Add(feature.Name, feature);
        }

        foreach ((string other, string name) in (ReadOnlySpan<(string, string)>)
        [
            ("pni", "sse3"), ("lzcnt", "abm"), ("sha", "sha_ni"), ("clflushsize", "clflush"), ("rdpid_msr", "rdpid")
        ])
        {
            names.Add(other, names[name]);
        }

        return names.ToFrozenDictionary(StringComparer.Ordinal);
    }

    private static CpuFeature[] Build()
    {
        List<CpuFeature> features = new(400);
        foreach (CpuFeatureNames row in CpuFeatureNames.All)
        {
            int bit = 0;
            foreach (string name in row.Names.Split(' '))
            {
                if (!string.Equals(name, CpuFeatureNames.None, StringComparison.Ordinal))
                {
                    features.Add(new CpuFeature(name, row.Leaf, row.Subleaf, row.Register, bit, row.IsMsr));
                }

                bit++;
            }
        }

        return [.. features];
    }
}
