using Vmm.Interop.Kvm;
using Vmm.Machine.Cpu;
using Vmm.Spec;

namespace Vmm.Machine.Tests.Layout;

/// <summary>APIC ids, and the CPUID leaves that tell how to read them.</summary>
public sealed class CpuTopologyTests
{
    private static readonly KvmCpuidEntry[] s_amd =
    [
        new() { Function = 0, Eax = 0x10, Ebx = 0x6874_7541 }, new() { Function = 1 }, new() { Function = 0x8000_0001, Ecx = 1 << 22 },
        new() { Function = 0x8000_0008, Eax = 48 },
        new() { Function = 0x8000_001D, Index = 0, Eax = 0x21 }, new() { Function = 0x8000_001D, Index = 3, Eax = 0x63 },
        new() { Function = 0x8000_001E },
    ];

    [Fact]
    public void Each_vnode_is_a_package_in_the_apic_id()
    {
        CpuTopology topology = CpuTopology.Create([0, 0, 0, 1, 1]);
        Assert.Equal([0u, 1u, 2u, 4u, 5u], topology.Vcpus.Select(v => v.ApicId));
        Assert.Equal((2, 2), (topology.PackageShift, topology.Packages));
        KvmCpuidEntry[] cpuid = CpuidModel.Build(s_amd, topology, topology.Vcpus[4], tscDeadline: false);
        Assert.DoesNotContain(cpuid, e => e.Function is 0x8000_001D or 0x8000_001E);
        Assert.Equal([(0u, 1u, 0x100u), (2u, 3u, 0x201u), (0u, 0u, 2u)], Levels(cpuid, 0xB));
    }

    [Fact]
    public void Threads_cores_dies_and_sockets_have_fields_of_their_own()
    {
        TopologySpec wish = new() { Dies = 2, Cores = 3, Threads = 2 };
        CpuShape shape = wish.Shape(24, 2)!.Value;
        Assert.Equal(new CpuShape(2, 2, 3, 2), shape);
        CpuTopology topology = CpuTopology.Create([.. Enumerable.Range(0, 24).Select(i => i / 12)], shape);
        Assert.Equal((1, 3, 4), (topology.ThreadBits, topology.DieShift, topology.PackageShift));
        Assert.Equal([0u, 1u, 2u, 3u, 4u, 5u, 8u, 9u, 10u, 11u, 12u, 13u, 16u], topology.Vcpus.Take(13).Select(v => v.ApicId));
        Assert.Equal(topology.Vcpus[^1].ApicId, shape.GreatestApicId);

        VcpuPlace vcpu = topology.Vcpus[9]; // second die of the first socket, second core, second thread
        KvmCpuidEntry[] cpuid = CpuidModel.Build(s_amd, topology, vcpu, tscDeadline: false);
        Assert.Equal([(1u, 2u, 0x100u), (4u, 12u, 0x201u), (0u, 0u, 2u)], Levels(cpuid, 0xB));
        Assert.Equal([(1u, 2u, 0x100u), (3u, 6u, 0x201u), (4u, 12u, 0x502u), (0u, 0u, 3u)], Levels(cpuid, 0x1F));
        Assert.All(cpuid.Where(e => e.Function is 0xB or 0x1F), e => Assert.Equal(vcpu.ApicId, e.Edx));
        KvmCpuidEntry[] caches = [.. cpuid.Where(e => e.Function == 0x8000_001D)];
        Assert.Equal([1u, 7u], caches.Select(e => e.Eax >> 14)); // first level: a core's threads; third: the die's ids
        KvmCpuidEntry unit = cpuid.Single(e => e.Function == 0x8000_001E);
        Assert.Equal((vcpu.ApicId, 0x105u, 0x101u), (unit.Eax, unit.Ebx, unit.Ecx)); // core 5 of its package's ids, 2 threads; die 1 of 2
        Assert.Equal((1u << 22) | 2, cpuid.Single(e => e.Function == 0x8000_0001).Ecx);
        Assert.Equal((4u << 12) | 15, cpuid.Single(e => e.Function == 0x8000_0008).Ecx);
        Assert.Equal(0x1Fu, cpuid.Single(e => e.Function == 0).Eax);
    }

    [Theory]
    [InlineData(null, null, 1, 1, 8, 2, 2, 4)]  // nothing but threads: a socket for each vnode
    [InlineData(null, 2, 1, 2, 8, 2, 2, 2)]     // cores: sockets are what they leave
    [InlineData(1, null, 1, 2, 8, 2, 1, 4)]
    public void What_is_left_out_follows(
        int? sockets, int? cores, int dies, int threads, int cpus, int vnodes, int expectedSockets, int expectedCores) =>
        Assert.Equal(
            new CpuShape(expectedSockets, dies, expectedCores, threads),
            new TopologySpec { Sockets = sockets, Cores = cores, Dies = dies, Threads = threads }.Shape(cpus, vnodes));

    [Fact]
    public void A_die_in_two_vnodes_is_refused() =>
        Assert.Contains(
            "share a die",
            Assert.Throws<ArgumentException>(() => CpuTopology.Create([0, 0, 0, 1], new CpuShape(2, 1, 2, 1))).Message,
            StringComparison.Ordinal);

    [Fact]
    public void Every_vcpu_has_an_apic_id_of_its_own_whose_fields_are_its_place()
    {
        Random random = new(4);
        for (int round = 0; round < 300; round++)
        {
            CpuShape shape = new(random.Next(1, 5), random.Next(1, 4), random.Next(1, 6), random.Next(1, 4));
            CpuTopology topology = CpuTopology.Create(new int[shape.Sockets * shape.Dies * shape.CpusOfDie], shape);
            Assert.Distinct(topology.Vcpus.Select(v => v.ApicId));
            Assert.Equal(shape.Sockets, topology.Vcpus.Select(v => v.ApicId >> topology.PackageShift).Distinct().Count());
            Assert.Equal(shape.Sockets * shape.Dies, topology.Vcpus.Select(v => v.ApicId >> topology.DieShift).Distinct().Count());
            Assert.All(topology.Vcpus.GroupBy(v => v.ApicId >> topology.ThreadBits), core => Assert.Equal(shape.Threads, core.Count()));
        }
    }

    private static IEnumerable<(uint, uint, uint)> Levels(KvmCpuidEntry[] cpuid, uint leaf) =>
        cpuid.Where(e => e.Function == leaf).Select(e => (e.Eax, e.Ebx, e.Ecx));
}
