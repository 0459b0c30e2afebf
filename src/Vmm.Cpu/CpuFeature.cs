namespace Vmm.Cpu;

/// <summary>A register of the CPUID instruction's answer.</summary>
public enum CpuRegister
{
    /// <summary>EAX.</summary>
    Eax,

    /// <summary>EBX.</summary>
    Ebx,

    /// <summary>ECX.</summary>
    Ecx,

    /// <summary>EDX.</summary>
    Edx,
}

/// <summary>
/// One feature bit of CPUID (Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E), or of a feature MSR (Intel SDM vol. 4).
/// </summary>
/// <param name="Name">The name in <c>/proc/cpuinfo</c> where Linux has one.</param>
/// <param name="Leaf">CPUID leaf (EAX), or number of the MSR.</param>
/// <param name="Subleaf">CPUID subleaf (ECX).</param>
/// <param name="Register">The register the bit is in; EAX for an MSR.</param>
/// <param name="Bit">0 to 31; of an MSR 0 to 63.</param>
/// <param name="IsMsr">True when <paramref name="Leaf"/> is an MSR.</param>
public sealed record CpuFeature(string Name, uint Leaf, uint Subleaf, CpuRegister Register, int Bit, bool IsMsr = false)
{
    private const uint FirstNamedLeaf = 0x4000_0000, LeafWithSubleaves = 7, XsaveLeaf = 0xD;

    /// <summary>The bit as a mask of its register.</summary>
    public uint Mask => 1u << Bit;

    /// <summary>Where the bit is, as manuals write it: <c>CPUID 7.0 EBX bit 5</c>, <c>MSR 10Ah bit 3</c>.</summary>
    public string Place
    {
        get
        {
            if (IsMsr)
            {
                return $"MSR {Leaf:X}h bit {Bit}";
            }

            string leaf = Leaf < FirstNamedLeaf ? $"{Leaf:X}" : $"{Leaf:X8}h";
            string subleaf = Leaf is LeafWithSubleaves or XsaveLeaf ? $".{Subleaf}" : "";
            return $"CPUID {leaf}{subleaf} {Register.ToString().ToUpperInvariant()} bit {Bit}";
        }
    }

    /// <inheritdoc/>
    public override string ToString() => $"{Name} ({Place})";
}
