namespace Vmm.Cpu;

/// <summary>The answer of CPUID for one leaf and subleaf.</summary>
/// <param name="Leaf">EAX of the question.</param>
/// <param name="Subleaf">ECX of the question; 0 for a leaf without subleaves.</param>
/// <param name="HasSubleaves">The answer depends on ECX (KVM_CPUID_FLAG_SIGNIFCANT_INDEX).</param>
/// <param name="Eax">EAX.</param>
/// <param name="Ebx">EBX.</param>
/// <param name="Ecx">ECX.</param>
/// <param name="Edx">EDX.</param>
public readonly record struct CpuidLeaf(uint Leaf, uint Subleaf, bool HasSubleaves, uint Eax, uint Ebx, uint Ecx, uint Edx)
{
    /// <summary>One register.</summary>
    public uint this[CpuRegister register] =>
        register switch { CpuRegister.Eax => Eax, CpuRegister.Ebx => Ebx, CpuRegister.Ecx => Ecx, _ => Edx };

    /// <summary>The same leaf with another value in one register.</summary>
    public CpuidLeaf With(CpuRegister register, uint value) => register switch
    {
        CpuRegister.Eax => this with { Eax = value },
        CpuRegister.Ebx => this with { Ebx = value },
        CpuRegister.Ecx => this with { Ecx = value },
        _ => this with { Edx = value },
    };
}

/// <summary>A feature MSR: what a processor can do, constant while it runs.</summary>
/// <param name="Index">Number of the MSR.</param>
/// <param name="Value">Its value.</param>
public readonly record struct CpuMsr(uint Index, ulong Value);
