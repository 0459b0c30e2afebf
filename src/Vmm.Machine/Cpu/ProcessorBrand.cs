using System.Runtime.Intrinsics.X86;

namespace Vmm.Machine.Cpu;

/// <summary>
/// The name of the host's processor, as CPUID leaves 0x80000002 to 0x80000004 give it (Intel SDM vol. 2A, CPUID; 48 bytes of text).
/// </summary>
internal static class ProcessorBrand
{
    private const uint FirstLeaf = 0x8000_0002, LastLeaf = 0x8000_0004;

    /// <summary>EAX, EBX, ECX and EDX of the three leaves; empty when this processor has no name.</summary>
    internal static uint[] Read()
    {
        if (!X86Base.IsSupported || (uint)X86Base.CpuId(unchecked((int)0x8000_0000), 0).Eax < LastLeaf)
        {
            return [];
        }

        uint[] words = new uint[12];
        for (uint leaf = FirstLeaf; leaf <= LastLeaf; leaf++)
        {
            (int eax, int ebx, int ecx, int edx) = X86Base.CpuId((int)leaf, 0);
            uint at = (leaf - FirstLeaf) * 4;
            (words[at], words[at + 1], words[at + 2], words[at + 3]) = ((uint)eax, (uint)ebx, (uint)ecx, (uint)edx);
        }

        return words;
    }
}
