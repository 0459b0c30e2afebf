using System.Numerics;

namespace Vmm.Machine.Cpu;

/// <summary>One vCPU: its number, the vnode it sits on, and its APIC id.</summary>
public sealed record VcpuPlace(int Index, int Vnode, uint ApicId);

/// <summary>
/// Each vnode is one package (socket): Linux refuses to believe in a last-level cache that spans NUMA nodes,
/// and the APIC id carries the package number above the core number (Intel SDM vol. 3, 9.9.3.2).
/// </summary>
public sealed class CpuTopology
{
    private CpuTopology(IReadOnlyList<VcpuPlace> vcpus, int coreBits, int packages)
    {
        Vcpus = vcpus;
        CoreBits = coreBits;
        Packages = packages;
    }

    /// <summary>All vCPUs, by index.</summary>
    public IReadOnlyList<VcpuPlace> Vcpus { get; }

    /// <summary>Bits of the APIC id below the package number.</summary>
    public int CoreBits { get; }

    /// <summary>Number of packages that have a vCPU.</summary>
    public int Packages { get; }

    /// <summary>Logical processors per package that the APIC id has room for.</summary>
    public int CoresPerPackage => 1 << CoreBits;

    /// <summary>Builds the topology from the vnode of each vCPU.</summary>
    public static CpuTopology Create(int[] vnodeOfVcpu)
    {
        int vnodes = 0;
        foreach (int vnode in vnodeOfVcpu)
        {
            vnodes = Math.Max(vnodes, vnode + 1);
        }

        // Packages are numbered in the order their first vCPU comes, so that vCPU 0 has APIC id 0.
        int packages = 0, most = 0;
        int[] packageOf = new int[vnodes], population = new int[vnodes];
        foreach (int vnode in vnodeOfVcpu)
        {
            if (population[vnode]++ == 0)
            {
                packageOf[vnode] = packages++;
            }

            most = Math.Max(most, population[vnode]);
        }

        int coreBits = most <= 1 ? 0 : 32 - BitOperations.LeadingZeroCount((uint)(most - 1));
        int[] used = new int[vnodes];
        VcpuPlace[] vcpus = new VcpuPlace[vnodeOfVcpu.Length];
        for (int i = 0; i < vcpus.Length; i++)
        {
            int vnode = vnodeOfVcpu[i];
            int core = used[vnode]++;
            vcpus[i] = new VcpuPlace(i, vnode, ((uint)packageOf[vnode] << coreBits) | (uint)core);
        }

        return new CpuTopology(vcpus, coreBits, packages);
    }
}
