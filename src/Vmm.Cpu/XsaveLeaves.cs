namespace Vmm.Cpu;

/// <summary>
/// CPUID leaf 0xD (Intel SDM vol. 1, 13.2): which components the XSAVE area has follows from the features that have state there.
/// </summary>
internal static class XsaveLeaves
{
    private const uint Leaf = 0xD;
    private const uint LegacyArea = 576; // 512 bytes of FXSAVE and the header of 64

    private const ulong Legacy = 0b11; // x87, SSE

    // Component number, and the feature that has its state there: XCR0 first, then those of IA32_XSS.
    private static readonly (int Component, string Feature)[] s_user =
    [
        (2, "avx"), (3, "mpx"), (4, "mpx"), (5, "avx512f"), (6, "avx512f"), (7, "avx512f"), (9, "pku"), (17, "amx_tile"), (18, "amx_tile")
    ];
    private static readonly (int Component, string Feature)[] s_supervisor =
    [
        (8, "intel_pt"), (10, "enqcmd"), (11, "shstk"), (12, "shstk"), (14, "uintr"), (15, "arch_lbr")
    ];

    /// <summary>
    /// Takes out the components of features that are not wanted, and of a named model those that are not known here; all of the leaf
    /// without xsave.
    /// </summary>
    internal static void Fit(List<CpuidLeaf> leaves, HashSet<CpuFeature> wanted, bool named)
    {
        if (!wanted.Contains(CpuFeatures.Get("xsave")))
        {
            leaves.RemoveAll(l => l.Leaf == Leaf);
            return;
        }

        ulong user = Legacy | Mask(s_user, wanted, named), supervisor = Mask(s_supervisor, wanted, named);
        leaves.RemoveAll(l => l is { Leaf: Leaf, Subleaf: > 1 } && ((IsSupervisor(l) ? supervisor : user) >> (int)l.Subleaf & 1) == 0);
        uint size = LegacyArea;
        foreach (CpuidLeaf leaf in leaves)
        {
            if (leaf is { Leaf: Leaf, Subleaf: > 1 and < 64 } && !IsSupervisor(leaf))
            {
                size = Math.Max(size, leaf.Eax + leaf.Ebx);
            }
        }

        for (int i = 0; i < leaves.Count; i++)
        {
            CpuidLeaf leaf = leaves[i];
            leaves[i] = leaf switch
            {
                // EBX is the size for the XCR0 of the moment, which KVM keeps up to date.
                { Leaf: Leaf, Subleaf: 0 } =>
                    leaf with { Eax = leaf.Eax & (uint)user, Ebx = LegacyArea, Ecx = size, Edx = leaf.Edx & (uint)(user >> 32) },
                { Leaf: Leaf, Subleaf: 1 } => leaf with { Ecx = leaf.Ecx & (uint)supervisor, Edx = leaf.Edx & (uint)(supervisor >> 32) },
                _ => leaf,
            };
        }
    }

    // ECX bit 0: the component belongs to IA32_XSS, and is in the compacted form only.
    private static bool IsSupervisor(CpuidLeaf leaf) => (leaf.Ecx & 1) != 0;

    private static ulong Mask((int Component, string Feature)[] components, HashSet<CpuFeature> wanted, bool named)
    {
        ulong known = 0, mask = 0;
        foreach ((int component, string feature) in components)
        {
            known |= 1UL << component;
            mask |= wanted.Contains(CpuFeatures.Get(feature)) ? 1UL << component : 0;
        }

        return named ? mask : mask | ~known;
    }
}
