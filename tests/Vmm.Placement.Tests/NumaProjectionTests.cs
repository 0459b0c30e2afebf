using FsCheck;
using FsCheck.Fluent;
using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;

namespace Vmm.Placement.Tests;

public sealed class NumaProjectionTests
{
    private static readonly HostTopology s_two = Host((0, 8, 16 << 10), (1, 8, 16 << 10));

    [Fact]
    public void A_small_vm_gets_one_vnode_on_the_node_with_more_room()
    {
        HostTopology host = Host((0, 8, 4 << 10), (1, 8, 6 << 10));
        VnodeSpec vnode = Assert.Single(Auto(4, 2 << 10, host).EffectiveVnodes);
        Assert.Equal([1], vnode.HostNodes);
        Assert.Equal(VnodePolicy.Preferred, vnode.Policy);
    }

    [Fact]
    public void A_vm_that_no_node_can_hold_is_split_and_its_distances_are_the_hosts()
    {
        VmSpec spec = Auto(12, 20 << 10, s_two);
        Assert.Equal([0, 1], spec.EffectiveVnodes.Select(v => v.HostNodes.Single()));
        Assert.Equal([6, 6], spec.EffectiveVnodes.Select(v => v.Cpus.Count));
        Assert.Equal([[10, 21], [21, 10]], HostDistances.Of(spec.EffectiveVnodes, s_two));
    }

    [Fact]
    public void More_cpus_than_one_node_has_split_it_too_but_more_than_the_host_has_do_not()
    {
        Assert.Equal(2, Auto(10, 1 << 10, s_two).EffectiveVnodes.Count);
        Assert.Single(Auto(40, 1 << 10, s_two).EffectiveVnodes);
    }

    [Fact]
    public void Of_four_nodes_the_near_pair_is_taken()
    {
        HostTopology host = HostTopology.Of(
        [
            Node(0, 4, 8 << 10, 10, 40, 40, 40), Node(1, 4, 8 << 10, 40, 10, 40, 12), Node(2, 4, 9 << 10, 40, 40, 10, 40),
            Node(3, 4, 8 << 10, 40, 12, 40, 10)
        ]);
        Assert.Equal([1, 3], Auto(8, 12 << 10, host).EffectiveVnodes.Select(v => v.HostNodes.Single()));
    }

    [Fact]
    public void A_forced_count_is_kept_whatever_the_host_is()
    {
        VmSpec spec = NumaProjection.Apply(
            new VmSpec { Cpus = 4, Memory = ByteSize.GiB(1), Numa = new NumaSpec { Auto = true, Count = 4 } }, s_two);
        Assert.Equal([0, 0, 1, 1], spec.EffectiveVnodes.Select(v => v.HostNodes.Single()));
        Assert.Equal(21, HostDistances.Of(spec.EffectiveVnodes, s_two)[0][1]);
        Assert.Equal(
            4,
            NumaProjection.Apply(
                new VmSpec { Cpus = 4, Numa = new NumaSpec { Auto = true, Count = 4 } }, HostTopology.Unknown).EffectiveVnodes.Count);
    }

    [Fact]
    public void What_does_not_fit_is_refused_with_the_numbers()
    {
        Assert.Contains(
            "node 0 16384 MiB, node 1 16384 MiB",
            Assert.Throws<HostMismatchException>(() => Auto(1, 33 << 10, s_two)).Message,
            StringComparison.Ordinal);
        VmSpec strict =
            new()
            {
                Name = "big",
                Memory = ByteSize.GiB(17),
                Numa = new NumaSpec
                {
                    Vnodes = [new VnodeSpec { Cpus = [0], Memory = ByteSize.GiB(17), HostNodes = [1], Policy = VnodePolicy.Strict }]
                }
            };
        Assert.Contains(
            "17408 MiB must come from host node 1, which has 16384 MiB",
            Assert.Throws<HostMismatchException>(() => NumaAdmission.Check(strict, s_two)).Message,
            StringComparison.Ordinal);
        NumaAdmission.Check(strict, HostTopology.Unknown);
        VmSpec nowhere =
            strict with
            {
                Numa =
                    new NumaSpec
                    {
                        Vnodes =
                        [
                            new VnodeSpec { HostNodes = [0, 7, 9], Policy = VnodePolicy.Interleave },
                            new VnodeSpec { HostNodes = [8], Policy = VnodePolicy.Strict }
                        ]
                    }
            };
        string both = Assert.Throws<HostMismatchException>(() => NumaAdmission.Check(nowhere, s_two)).Message;
        Assert.Contains(
            "vnode 0 names host node 7,9, which does not exist; vnode 1 names host node 8, which", both, StringComparison.Ordinal);
    }

    [Fact]
    public void Whatever_host_and_vm_the_vnodes_are_whole_even_near_and_as_few_as_can_be()
    {
        Gen<(int Nodes, int[] Cpus, int[] Memory, int VmCpus, int VmMemory, int Grow)> any =
            from nodes in Gen.Choose(1, 5)
            from cpus in Gen.Choose(1, 16).ArrayOf(nodes)
            from memory in Gen.Choose(2, 4000).ArrayOf(nodes)
            from vmCpus in Gen.Choose(1, 40)
            from vmMemory in Gen.Choose(1, 6000)
            from grow in Gen.Choose(0, 100)
            select (nodes, cpus, memory, vmCpus, vmMemory, grow);
        Prop.ForAll(any.ToArbitrary(), x =>
        {
            HostTopology host = Host([.. Enumerable.Range(0, x.Nodes).Select(i => (i, x.Cpus[i], x.Memory[i]))]);
            ByteSize memory = ByteSize.MiB((ulong)x.VmMemory * 2);
            VmSpec wish = new()
            {
                Cpus = x.VmCpus,
                Memory = memory,
                MaxMemory = memory + ByteSize.MiB((ulong)x.Grow * 2),
                Numa = new NumaSpec { Auto = true },
                Boot = new BootSpec { Kernel = "k" }
            };
            VmSpec spec;
            try
            {
                spec = NumaProjection.Apply(wish, host);
            }
            catch (HostMismatchException)
            {
                Assert.DoesNotContain(Enumerable.Range(1, x.Nodes), n => Holds(x.Memory, x.VmMemory, n));
                return;
            }

            IReadOnlyList<VnodeSpec> vnodes = spec.Numa!.Vnodes;
            Assert.Empty(SpecValidation.Validate(spec));
            Assert.Equal(Enumerable.Range(0, x.VmCpus), vnodes.SelectMany(v => v.Cpus));
            Assert.True(vnodes.Max(v => v.Memory.Bytes) - vnodes.Min(v => v.Memory.Bytes) <= NumaSplit.Unit);
            Assert.Equal(vnodes.Count, vnodes.Select(v => v.HostNodes.Single()).Distinct().Count());
            Assert.All(vnodes, v => Assert.True(v.Memory <= ByteSize.MiB((ulong)x.Memory[v.HostNodes[0]])));
            Assert.All(vnodes, v => Assert.True(v.MaxMemory >= v.Memory));
            bool cpusFit = x.VmCpus <= x.Cpus.Sum() && vnodes.All(v => v.Cpus.Count <= x.Cpus[v.HostNodes[0]]);
            if (!cpusFit || x.VmCpus <= x.Cpus.Min())
            {
                // memory alone decides: no fewer would do
                Assert.DoesNotContain(Enumerable.Range(1, vnodes.Count - 1), n => Holds(x.Memory, x.VmMemory, n));
            }
        }).QuickCheckThrowOnFailure();
    }

    /// <summary>Whether so many nodes can each hold an even share; in units of 2 MiB and MiB.</summary>
    private static bool Holds(int[] nodes, int units, int vnodes) =>
        units >= vnodes && nodes.Count(n => n >= 2 * ((units + vnodes - 1) / vnodes)) >= vnodes;

    private static VmSpec Auto(int cpus, int mib, HostTopology host) =>
        NumaProjection.Apply(new VmSpec { Cpus = cpus, Memory = ByteSize.MiB((ulong)mib), Numa = new NumaSpec { Auto = true } }, host);

    private static HostTopology Host(params (int Id, int Cpus, int Mib)[] nodes) =>
        HostTopology.Of([.. nodes.Select(n => Node(n.Id, n.Cpus, n.Mib, [.. nodes.Select(m => m.Id == n.Id ? 10 : 21)]))]);

    private static HostNode Node(int id, int cpus, int mib, params int[] distances) =>
        new(id, NumberSet.Range(id * 16, cpus), (ulong)mib << 20, (ulong)mib << 20, distances);
}
