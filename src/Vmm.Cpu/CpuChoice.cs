namespace Vmm.Cpu;

/// <summary>A model with features added and taken away.</summary>
/// <param name="Model">Name of the model.</param>
/// <param name="Features"><c>+name</c> or <c>-name</c>.</param>
public sealed record CpuChoice(string Model, IReadOnlyList<string> Features)
{
    private const uint AmdSharedBits = 0x0183_F3FF; // bits of 80000001h EDX that repeat those of 1 EDX on AMD (APM vol. 3, E.4.2)
    private const uint ClflushLine = 0xFF00;        // 1 EBX[15:8]
    private const uint LargestBasicLeaf = 0xD, LargestExtendedLeaf = 0x8000_0021;

    /// <summary>What is wrong with one entry of <see cref="Features"/>; null when it is sound.</summary>
    public static string? Problem(string text)
    {
        if (text.Length < 2 || text[0] is not ('+' or '-'))
        {
            return "expected +name or -name";
        }

        if (!CpuFeatures.TryGet(text[1..], out CpuFeature feature))
        {
            return "is no CPU feature that is known here";
        }

        return CpuFeatures.IsFixed(feature) ? "is set by the machine itself: leave it out" : null;
    }

    /// <summary>
    /// The processor of this choice on a host: of a named model the model's leaves and bits and no others, of <c>host</c> all the host has.
    /// Bits that the choice asks for are set whether or not the host has them: <see cref="CpuDescription.Missing"/> says.
    /// </summary>
    /// <exception cref="InvalidOperationException">The model or a feature is unknown.</exception>
    public CpuDescription Describe(CpuDescription host)
    {
        bool named = !string.Equals(Model, CpuModel.Host, StringComparison.Ordinal);
        if (!named && Features.Count == 0)
        {
            return host;
        }

        CpuModel? model = CpuModel.Find(Model);
        if (named && model is null)
        {
            throw new InvalidOperationException($"\"{Model}\" is no CPU model");
        }

        HashSet<CpuFeature> wanted = model is null
            ? [.. CpuFeatures.All.Where(host.Has)]
            : [.. model.Required, .. model.Optional.Where(host.Has)];
        Change(wanted);
        List<CpuidLeaf> leaves = [];
        foreach (CpuidLeaf leaf in host.Leaves)
        {
            if (Filter(leaf, host, wanted, named) is { } kept)
            {
                leaves.Add(kept);
            }
        }

        AddMissingLeaves(leaves, wanted);
        XsaveLeaves.Fit(leaves, wanted, named);
        return new CpuDescription { Model = Label(), Leaves = leaves, Msrs = Msrs(host, wanted, named) };
    }

    private string Label() => Features.Count == 0 ? Model : $"{Model},{string.Join(',', Features)}";

    private void Change(HashSet<CpuFeature> wanted)
    {
        foreach (string text in Features)
        {
            if (Problem(text) is { } problem)
            {
                throw new InvalidOperationException($"\"{text}\" {problem}");
            }

            CpuFeature feature = CpuFeatures.Get(text[1..]);
            if (text[0] == '+')
            {
                wanted.UnionWith(FeatureDependencies.WithNeeds(feature));
            }
            else
            {
                wanted.ExceptWith(FeatureDependencies.WithDependents(feature));
            }
        }
    }

    /// <summary>A leaf of the host with the bits that are wanted; null when the model has no such leaf.</summary>
    private static CpuidLeaf? Filter(CpuidLeaf leaf, CpuDescription host, HashSet<CpuFeature> wanted, bool named)
    {
        if (named)
        {
            switch (leaf.Leaf)
            {
                case 0:
                    leaf = leaf with { Eax = Math.Min(leaf.Eax, LargestBasicLeaf) };
                    break;
                case 0x8000_0000:
                    leaf = leaf with { Eax = Math.Min(leaf.Eax, LargestExtendedLeaf) };
                    break;
                case 1:
                    leaf = leaf with { Ebx = leaf.Ebx & ClflushLine, Ecx = 0, Edx = 0 };
                    break;
                case 6 or 0x8000_0007 or 0x8000_0021:
                    leaf = leaf with { Eax = 0, Ebx = 0, Ecx = 0, Edx = 0 };
                    break;
                case 7:
                    leaf = leaf with { Eax = leaf.Subleaf == 0 ? leaf.Eax : 0, Ebx = 0, Ecx = 0, Edx = 0 };
                    break;
                case CpuFeatures.KvmFeatureLeaf or 0x8000_0001:
                    leaf = leaf with { Eax = leaf.Leaf == CpuFeatures.KvmFeatureLeaf ? 0 : leaf.Eax, Ebx = 0, Ecx = 0, Edx = 0 };
                    break;
                case 0x8000_0008:
                    leaf = leaf with { Ebx = 0, Ecx = 0, Edx = 0 };
                    break;
                case 0x8000_000A when wanted.Contains(CpuFeatures.Get("svm")):
                    leaf = leaf with { Edx = 0 };
                    break;
                // Caches, topology, XSAVE, the signature of KVM: as they are.
                case 2 or 4 or 0xB or 0xD or CpuFeatures.KvmSignatureLeaf or 0x8000_0005 or 0x8000_0006 or 0x8000_001D or 0x8000_001E:
                    break;
                default:
                    return null;
            }
        }

        foreach (CpuFeature feature in CpuFeatures.All)
        {
            if (!feature.IsMsr && feature.Leaf == leaf.Leaf && feature.Subleaf == leaf.Subleaf)
            {
                uint value = leaf[feature.Register];
                leaf = leaf.With(feature.Register, wanted.Contains(feature) ? value | feature.Mask : value & ~feature.Mask);
            }
        }

        if (leaf.Leaf == 0x8000_0001 && host.Vendor is "AuthenticAMD" or "HygonGenuine" && named)
        {
            leaf = leaf with { Edx = leaf.Edx | Shared(wanted) };
        }

        return leaf;
    }

    private static uint Shared(HashSet<CpuFeature> wanted)
    {
        uint bits = 0;
        foreach (CpuFeature feature in wanted)
        {
            bits |= feature is { IsMsr: false, Leaf: 1, Register: CpuRegister.Edx } ? feature.Mask : 0;
        }

        return bits & AmdSharedBits;
    }

    /// <summary>A bit that is wanted in a leaf the host does not have: the leaf is made, so that the comparison finds the bit.</summary>
    private static void AddMissingLeaves(List<CpuidLeaf> leaves, HashSet<CpuFeature> wanted)
    {
        foreach (CpuFeature feature in CpuFeatures.All)
        {
            if (feature.IsMsr || !wanted.Contains(feature))
            {
                continue;
            }

            int at = leaves.FindIndex(l => l.Leaf == feature.Leaf && l.Subleaf == feature.Subleaf);
            if (at < 0)
            {
                at = leaves.Count;
                leaves.Add(new CpuidLeaf(feature.Leaf, feature.Subleaf, feature.Leaf is 7 or 0xD, 0, 0, 0, 0));
            }

            leaves[at] = leaves[at].With(feature.Register, leaves[at][feature.Register] | feature.Mask);
        }
    }

    /// <summary>Without arch_capabilities a guest cannot read that MSR; the others belong to features that no named model has.</summary>
    private static CpuMsr[] Msrs(CpuDescription host, HashSet<CpuFeature> wanted, bool named)
    {
        bool capabilities = wanted.Contains(CpuFeatures.Get("arch_capabilities"));
        return [.. host.Msrs.Where(m => m.Index == CpuFeatures.ArchCapabilitiesMsr ? capabilities : !named)];
    }
}
