namespace Vmm.Cpu;

/// <summary>
/// A processor as a guest sees it, apart from its place in the topology: CPUID leaves and feature MSRs. A host has one (all that its KVM
/// can show), a VM has one, and the VM can run where <see cref="Missing"/> is empty.
/// </summary>
public sealed record CpuDescription
{
    /// <summary>Version of the record's form.</summary>
    public const int CurrentVersion = 1;

    private const uint SignatureLeaf = 0, FeatureLeaf = 1, BrandLeaf = 0x8000_0002, AddressLeaf = 0x8000_0008, XsaveLeaf = 0xD;
    private const int DefaultPhysicalBits = 36;

    /// <summary>Form of the record: <see cref="CurrentVersion"/>.</summary>
    public int Version { get; init; } = CurrentVersion;

    /// <summary>The model it was made from, or <c>host</c>.</summary>
    public required string Model { get; init; }

    /// <summary>Leaves, each leaf and subleaf once.</summary>
    public required IReadOnlyList<CpuidLeaf> Leaves { get; init; }

    /// <summary>Feature MSRs.</summary>
    public IReadOnlyList<CpuMsr> Msrs { get; init; } = [];

    /// <summary>Twelve characters: <c>GenuineIntel</c>, <c>AuthenticAMD</c>.</summary>
    public string Vendor => Find(SignatureLeaf, 0) is { } leaf ? Text([leaf.Ebx, leaf.Edx, leaf.Ecx]) : "";

    /// <summary>The name that the processor has for people, CPUID 80000002h to 80000004h; empty when those leaves are missing.</summary>
    public string Brand => string.Concat(BrandPart(0), BrandPart(1), BrandPart(2)).TrimEnd('\0').Trim();

    /// <summary>What it is, CPUID 1: EAX, and above it EDX.</summary>
    public ulong Signature => Find(FeatureLeaf, 0) is { } leaf ? ((ulong)leaf.Edx << 32) | leaf.Eax : 0;

    /// <summary>Width of physical addresses, CPUID 80000008h EAX[7:0]; 36 when the leaf is missing.</summary>
    public int PhysicalAddressBits => Find(AddressLeaf, 0) is { } leaf ? (int)(leaf.Eax & 0xFF) : DefaultPhysicalBits;

    /// <summary>The leaf, when it is there.</summary>
    public CpuidLeaf? Find(uint leaf, uint subleaf)
    {
        foreach (CpuidLeaf candidate in Leaves)
        {
            if (candidate.Leaf == leaf && candidate.Subleaf == subleaf)
            {
                return candidate;
            }
        }

        return null;
    }

    /// <summary>Whether the bit is set.</summary>
    public bool Has(CpuFeature feature)
    {
        if (!feature.IsMsr)
        {
            return Find(feature.Leaf, feature.Subleaf) is { } leaf && (leaf[feature.Register] & feature.Mask) != 0;
        }

        foreach (CpuMsr msr in Msrs)
        {
            if (msr.Index == feature.Leaf)
            {
                return (msr.Value >> feature.Bit & 1) != 0;
            }
        }

        return false;
    }

    /// <summary>
    /// What <paramref name="host"/> lacks to show this processor to a guest, one text each, such as <c>the host has no avx2 (CPUID 7.0 EBX
    /// bit 5)</c>. Compared are vendor, every named feature bit, the width of addresses and the layout of the XSAVE area. Family, model,
    /// stepping, caches and the TSC's rate are not: they tell of a processor, they promise nothing.
    /// </summary>
    public IReadOnlyList<string> Missing(CpuDescription host)
    {
        List<string> missing = [];
        if (!string.Equals(Vendor, host.Vendor, StringComparison.Ordinal))
        {
            missing.Add($"the host's processor is of {Printable(host.Vendor)}, not of {Printable(Vendor)}");
        }

        foreach (CpuFeature feature in CpuFeatures.All)
        {
            if (IsCompared(feature) && Has(feature) && !host.Has(feature))
            {
                missing.Add($"the host has no {feature}");
            }
        }

        if (host.PhysicalAddressBits < PhysicalAddressBits)
        {
            missing.Add($"the host has physical addresses of {host.PhysicalAddressBits} bits, not {PhysicalAddressBits} (CPUID 80000008h "
                + "EAX bits 7-0)");
        }

        foreach (CpuidLeaf leaf in Leaves)
        {
            // Offset and size of each component of the standard area are fixed by what a guest has saved already.
            if (leaf is { Leaf: XsaveLeaf, Subleaf: > 1 }
                && (host.Find(XsaveLeaf, leaf.Subleaf) is not { } own || own.Eax != leaf.Eax || own.Ebx != leaf.Ebx))
            {
                missing.Add(
                    $"the host has no XSAVE component {leaf.Subleaf} of {leaf.Eax} bytes at offset {leaf.Ebx} (CPUID D.{leaf.Subleaf})");
            }
        }

        return missing;
    }

    // The machine makes these: KVM's list of what it supports need not have them.
    private static bool IsCompared(CpuFeature feature) =>
        feature.Name is not ("x2apic" or "tsc_deadline_timer" or "hypervisor" or "ht" or "cmp_legacy" or "topoext"
            or "osxsave" or "ospke" or "kvm_msi_ext_dest_id");

    private string BrandPart(uint index) =>
        Find(BrandLeaf + index, 0) is { } leaf ? Text([leaf.Eax, leaf.Ebx, leaf.Ecx, leaf.Edx]) : "";

    private static string Text(ReadOnlySpan<uint> words)
    {
        Span<char> text = stackalloc char[words.Length * 4];
        for (int i = 0; i < text.Length; i++)
        {
            text[i] = (char)(words[i / 4] >> (8 * (i % 4)) & 0xFF);
        }

        return new string(text).TrimEnd('\0');
    }

    private static string Printable(string vendor) =>
        vendor.Length > 0 && vendor.All(c => c is > ' ' and < (char)0x7F) ? vendor : "an unknown vendor";
}
