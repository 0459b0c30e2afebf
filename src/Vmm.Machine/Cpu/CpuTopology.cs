using Vmm.Spec;

namespace Vmm.Machine.Cpu;

/// <summary>One vCPU: its number, the vnode it sits on, and its APIC id.</summary>
/// <param name="Index">Number of the vCPU.</param>
/// <param name="Vnode">Its vnode.</param>
/// <param name="ApicId">Package, die, core and thread, in fields of the widths of <see cref="CpuTopology"/>.</param>
public sealed record VcpuPlace(int Index, int Vnode, uint ApicId)
{
    /// <summary>Die, counted over all packages.</summary>
    public int Die { get; init; }
}

/// <summary>
/// Packages, dies, cores and threads, and the APIC ids that tell of them (Intel SDM vol. 3, 9.9.3.2). Without a wish each vnode is one
/// package of single-threaded cores: Linux refuses to believe in a last-level cache that spans NUMA nodes.
/// </summary>
public sealed class CpuTopology
{
    private CpuTopology(VcpuPlace[] vcpus, CpuShape shape, bool asked)
    {
        Vcpus = vcpus;
        Shape = shape;
        Asked = asked;
        ThreadBits = CpuShape.BitsFor(shape.Threads);
        DieShift = ThreadBits + CpuShape.BitsFor(shape.Cores);
        PackageShift = DieShift + CpuShape.BitsFor(shape.Dies);
    }

    /// <summary>All vCPUs, by index.</summary>
    public IReadOnlyList<VcpuPlace> Vcpus { get; }

    /// <summary>Numbers of everything. Without a wish the packages may be of different sizes, and this is the largest.</summary>
    public CpuShape Shape { get; }

    /// <summary>The spec asked for it.</summary>
    public bool Asked { get; }

    /// <summary>Bits of the APIC id below the core number.</summary>
    public int ThreadBits { get; }

    /// <summary>Bits of the APIC id below the die number.</summary>
    public int DieShift { get; }

    /// <summary>Bits of the APIC id below the package number.</summary>
    public int PackageShift { get; }

    /// <summary>Some APIC id does not fit the 8 bits of a local APIC that is no x2APIC (255 is its broadcast).</summary>
    public bool HasWideApicIds => GreatestApicId >= 255;

    /// <summary>The greatest APIC id of a vCPU.</summary>
    public uint GreatestApicId
    {
        get
        {
            uint greatest = 0;
            foreach (VcpuPlace vcpu in Vcpus)
            {
                greatest = Math.Max(greatest, vcpu.ApicId);
            }

            return greatest;
        }
    }

    /// <summary>Number of packages that have a vCPU.</summary>
    public int Packages => Shape.Sockets;

    /// <summary>Logical processors that the APIC ids of a package have room for.</summary>
    public int IdsPerPackage => 1 << PackageShift;

    /// <summary>The topology of a spec with its vnodes.</summary>
    public static CpuTopology Of(VmSpec spec)
    {
        int[] vnodeOfVcpu = new int[spec.Cpus];
        IReadOnlyList<VnodeSpec> vnodes = spec.EffectiveVnodes;
        int withCpus = 0;
        for (int vnode = 0; vnode < vnodes.Count; vnode++)
        {
            withCpus += vnodes[vnode].Cpus.Count > 0 ? 1 : 0;
            foreach (int cpu in vnodes[vnode].Cpus)
            {
                vnodeOfVcpu[cpu] = vnode;
            }
        }

        return spec.Topology is { } wish && wish.Shape(spec.Cpus, withCpus) is { } shape ? Create(vnodeOfVcpu, shape) : Create(vnodeOfVcpu);
    }

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

        int coreBits = CpuShape.BitsFor(most);
        int[] used = new int[vnodes];
        VcpuPlace[] vcpus = new VcpuPlace[vnodeOfVcpu.Length];
        for (int i = 0; i < vcpus.Length; i++)
        {
            int vnode = vnodeOfVcpu[i];
            int core = used[vnode]++;
            vcpus[i] = new VcpuPlace(i, vnode, ((uint)packageOf[vnode] << coreBits) | (uint)core) { Die = packageOf[vnode] };
        }

        return new CpuTopology(vcpus, new CpuShape(packages, 1, most, 1), asked: false);
    }

    /// <summary>Builds the topology that a spec asks for.</summary>
    /// <exception cref="ArgumentException">A die would lie in two vnodes.</exception>
    public static CpuTopology Create(int[] vnodeOfVcpu, CpuShape shape)
    {
        int threadBits = CpuShape.BitsFor(shape.Threads), dieShift = threadBits + CpuShape.BitsFor(shape.Cores),
            packageShift = dieShift + CpuShape.BitsFor(shape.Dies);
        VcpuPlace[] vcpus = new VcpuPlace[vnodeOfVcpu.Length];
        for (int i = 0; i < vcpus.Length; i++)
        {
            int thread = i % shape.Threads, core = i / shape.Threads % shape.Cores, die = i / shape.CpusOfDie,
                first = die * shape.CpusOfDie;
            if (vnodeOfVcpu[i] != vnodeOfVcpu[first])
            {
                throw new ArgumentException(
                    $"vCPUs {first} and {i} share a die but not a vnode: a last-level cache does not span NUMA nodes; take another "
                        + "topology, or other vnodes",
                    nameof(shape));
            }

            uint id = ((uint)(die / shape.Dies) << packageShift) | ((uint)(die % shape.Dies) << dieShift) | ((uint)core << threadBits)
                | (uint)thread;
            vcpus[i] = new VcpuPlace(i, vnodeOfVcpu[i], id) { Die = die };
        }

        return new CpuTopology(vcpus, shape, asked: true);
    }
}
