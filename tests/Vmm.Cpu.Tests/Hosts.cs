namespace Vmm.Cpu.Tests;

/// <summary>Processors that KVM could show.</summary>
internal static class Hosts
{
    // EBX, ECX, EDX
    private static readonly uint[] s_intel = [0x756E_6547, 0x6C65_746E, 0x4965_6E69], s_amd = [0x6874_7541, 0x444D_4163, 0x6974_6E65];

    // Components of the standard XSAVE area: number, size, offset, as the SDM's examples have them.
    private static readonly (uint, uint, uint)[] s_components =
    [
        (2, 256, 576), (5, 64, 1088), (6, 512, 1152), (7, 1024, 1664), (9, 8, 2688)
    ];

    /// <summary>All named features there are, without those of the other vendor's kind of leaf.</summary>
    internal static CpuDescription Everything(bool amd = false) => With([.. CpuFeatures.All.Select(f => f.Name)], amd);

    /// <summary>A host with these features and no others.</summary>
    internal static CpuDescription With(IReadOnlyCollection<string> features, bool amd = false, int physicalBits = 46)
    {
        uint[] vendor = amd ? s_amd : s_intel;
        Dictionary<(uint, uint), CpuidLeaf> leaves = new()
        {
            [(0, 0)] = new(0, 0, false, 0x20, vendor[0], vendor[1], vendor[2]),
            [(1, 0)] = new(1, 0, false, 0x00A1_0F11, 0x0102_0800, 0, 0),
            [(7, 0)] = new(7, 0, true, 2, 0, 0, 0),
            [(0xA, 0)] = new(0xA, 0, false, 0x0730_0404, 0, 0, 0x603),
            [(0xD, 0)] = new(0xD, 0, true, 0x2E7, 2696, 2696, 0),
            [(0x15, 0)] = new(0x15, 0, false, 2, 100, 25_000_000, 0),
            [(0x8000_0000, 0)] = new(0x8000_0000, 0, false, 0x8000_0021, 0, 0, 0),
            [(0x8000_0001, 0)] = new(0x8000_0001, 0, false, 0x00A1_0F11, 0x4000_0000, 0, 0),
            [(0x8000_0008, 0)] = new(0x8000_0008, 0, false, 0x3000u | (uint)physicalBits, 0, 0x7001, 0),
            [(CpuFeatures.KvmSignatureLeaf, 0)] = new(CpuFeatures.KvmSignatureLeaf, 0, false, 0x4000_0001, 0x4B4D_564B, 0x564B_4D56, 0x4D),
        };
        foreach ((uint component, uint size, uint offset) in s_components)
        {
            leaves[(0xD, component)] = new(0xD, component, true, size, offset, 0, 0);
        }

        ulong capabilities = 0;
        foreach (CpuFeature feature in features.Select(CpuFeatures.Get))
        {
            if (feature.IsMsr)
            {
                capabilities |= 1UL << feature.Bit;
                continue;
            }

            (uint, uint) at = (feature.Leaf, feature.Subleaf);
            CpuidLeaf leaf = leaves.GetValueOrDefault(
                at, new CpuidLeaf(feature.Leaf, feature.Subleaf, feature.Leaf is 7 or 0xD, 0, 0, 0, 0));
            leaves[at] = leaf.With(feature.Register, leaf[feature.Register] | feature.Mask);
        }

        return new CpuDescription
        {
            Model = CpuModel.Host,
            Leaves = [.. leaves.Values],
            Msrs = [new CpuMsr(CpuFeatures.ArchCapabilitiesMsr, capabilities), new CpuMsr(0x8B, 0x100_0065)],
        };
    }
}
