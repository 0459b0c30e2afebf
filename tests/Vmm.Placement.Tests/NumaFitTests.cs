using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;

namespace Vmm.Placement.Tests;

/// <summary>A given topology on hosts of all kinds; sizes in MiB.</summary>
public sealed class NumaFitTests
{
    private static readonly HostTopology s_two = Host(Node(0, 4, 4096, 10, 20), Node(1, 4, 4096, 20, 10));

    [Fact]
    public void A_node_that_does_not_exist_is_replaced_by_a_free_one_and_the_rest_stays()
    {
        NumaFitResult fit = Map(Spec(Vnode(0, 1024, 0), Vnode(1, 1024, 5)), s_two);
        Assert.Equal([FitOutcome.Exact, FitOutcome.Moved], fit.Vnodes.Select(v => v.Outcome));
        Assert.Equal([0, 1], fit.Spec.EffectiveVnodes.Select(v => v.HostNodes.Single()));
        Assert.All(fit.Spec.EffectiveVnodes, v => Assert.Equal(VnodePolicy.Strict, v.Policy));
        Assert.Equal(
            "vnode 1 moved to host node 1: host node 5 does not exist here; the spec gives no distances: the guest is told those between "
                + "its host nodes",
            fit.Text);
        Assert.Empty(SpecValidation.Validate(fit.Spec));
    }

    [Fact]
    public void A_full_node_sends_as_few_vnodes_elsewhere_as_can_be()
    {
        HostTopology host = Host(Node(0, 8, 3000, 10, 20), Node(1, 8, 4096, 20, 10));
        NumaFitResult fit = Map(Spec(Vnode(0, 2048, 0), Vnode(1, 1500, 0)), host);
        Assert.Single(fit.Vnodes, v => v.Outcome == FitOutcome.Moved);
        Assert.Contains("has 3000 MiB", fit.Text, StringComparison.Ordinal);
    }

    [Fact]
    public void What_no_node_can_hold_whole_is_split_with_its_shares_and_strictness()
    {
        NumaFitResult fit = Map(Spec(Vnode(0, 1024, 3), Vnode(1, 6144, 2)), s_two);
        Assert.Equal([FitOutcome.Moved, FitOutcome.Split], fit.Vnodes.Select(v => v.Outcome));
        VnodeSpec split = fit.Spec.EffectiveVnodes[1];
        Assert.Equal([0, 1], split.HostNodes);
        Assert.Equal(VnodePolicy.Strict, split.Policy);
        Assert.Equal([(1, 4096UL), (0, 2048UL)], split.Shares!.Select(s => (s.Node, s.Bytes.Bytes >> 20)));
        VnodeHome home = NumaPlacement.Place(fit.Spec, s_two)[1];
        Assert.Same(split.Shares, home.Memory.Shares);
        Assert.Equal("0-3,16-19", NumberSet.Format(home.HostCpus));
    }

    [Fact]
    public void A_vnode_without_room_is_refused_when_it_must_have_it_and_told_of_when_it_may_overflow()
    {
        NumaFitResult strict = Map(Spec(Vnode(0, 9000, 0)), s_two);
        Assert.Equal(FitOutcome.NoRoom, strict.Vnodes[0].Outcome);
        Assert.Contains("vnode 0 does not fit: needs 9000 MiB, and the host has 4096 MiB on host node 0, 4096 MiB on host node 1 left "
            + "(available: node 0 4096 MiB, node 1 4096 MiB)",
            Assert.Throws<HostMismatchException>(() => NumaFit.Require(strict, s_two)).Message, StringComparison.Ordinal);
        NumaFitResult preferred = Map(Spec(Vnode(0, 9000, 7) with { Policy = VnodePolicy.Preferred }), s_two);
        NumaFit.Require(preferred, s_two);
        Assert.Equal([0], preferred.Spec.EffectiveVnodes[0].HostNodes);
    }

    [Fact]
    public void Huge_pages_are_counted_in_their_own_pools()
    {
        HugePagePool[] pools = [new(0, 2 << 20, 100, 10), new(1, 2 << 20, 1000, 600)];
        VnodeSpec huge = Vnode(0, 1024, 0) with { PageSize = ByteSize.MiB(2) };
        Assert.Equal(1, NumaFit.Map(Spec(huge), s_two, pools).Spec.EffectiveVnodes[0].HostNodes.Single());
        NumaFitResult none = NumaFit.Map(Spec(huge with { Policy = VnodePolicy.Preferred }), s_two, []);
        Assert.Contains(
            "1024 MiB in pages of 2 MiB",
            Assert.Throws<HostMismatchException>(() => NumaFit.Require(none, s_two)).Message,
            StringComparison.Ordinal);
    }

    [Fact]
    public void Vcpus_do_not_go_to_a_node_of_memory_only_when_another_has_room()
    {
        HostTopology host = Host(Node(0, 0, 8192, 10, 11, 40), Node(1, 4, 2048, 11, 10, 40), Node(2, 4, 2048, 40, 40, 10));
        NumaFitResult fit = Map(Spec(Vnode(0, 1024, 9), Vnode(null, 4096, 8)), host);
        Assert.Equal([1, 0], fit.Spec.EffectiveVnodes.Select(v => v.HostNodes.Single()));
    }

    [Fact]
    public void Distances_that_the_spec_gives_decide_which_node_is_whose()
    {
        // vnodes 0 and 1 are near each other, 2 is far; on the host 11 and 12 are.
        IReadOnlyList<IReadOnlyList<int>> guest = [[10, 12, 40], [12, 10, 40], [40, 40, 10]];
        HostTopology host = Host(Node(10, 4, 4096, 10, 30, 30), Node(11, 4, 4096, 30, 10, 15), Node(12, 4, 4096, 30, 15, 10));
        VmSpec spec = Spec(Vnode(0, 1024, 0), Vnode(1, 1024, 1), Vnode(2, 1024, 2));
        NumaFitResult fit = Map(spec with { Numa = spec.Numa! with { Distances = guest } }, host);
        Assert.Equal([11, 12, 10], fit.Spec.EffectiveVnodes.Select(v => v.HostNodes.Single()));
        Assert.Equal((2, 2, 0, 100), (fit.Distances.Compared, fit.Distances.InOrder, fit.Distances.Tied, fit.Distances.Percent));
        Assert.Same(guest, fit.Spec.Numa!.Distances);
        NumaFitResult one = Map(spec with { Numa = spec.Numa with { Distances = guest } }, Host(Node(0, 16, 8192, 10)));
        Assert.Equal((2, 0, 2, 50), (one.Distances.Compared, one.Distances.InOrder, one.Distances.Tied, one.Distances.Percent));
        Assert.Contains(
            "0 of 2 comparisons of distances are in the guest's order, 2 tied, 0 reversed (50 %)", one.Text, StringComparison.Ordinal);
    }

    [Fact]
    public void A_host_that_nothing_is_known_of_and_a_vm_without_a_wish_are_left_as_they_are()
    {
        VmSpec wish = Spec(Vnode(0, 64, 3));
        Assert.Same(wish, NumaFit.Map(wish, HostTopology.Unknown, []).Spec);
        VmSpec plain = new() { Boot = new BootSpec { Kernel = "k" } };
        Assert.Same(plain, Map(plain, s_two).Spec);
        VmSpec automatic = Spec(Vnode(0, 64), Vnode(1, 64), Vnode(2, 64));
        Assert.Same(automatic, Map(automatic, s_two).Spec);
    }

    [Fact]
    public void Vnodes_that_want_overlapping_sets_are_exact_when_some_distribution_gives_all_of_them_room()
    {
        VmSpec spec = Spec(Vnode(0, 3000) with { HostNodes = [0, 1], Policy = VnodePolicy.Strict }, Vnode(1, 4096, 0));
        NumaFitResult fit = Map(spec, s_two);
        Assert.True(fit.IsExact);
        Assert.Same(spec, fit.Spec);
        Assert.Equal([1], fit.Vnodes[0].Shares.Select(s => s.Node));
    }

    [Fact]
    public void On_the_host_it_was_made_for_every_topology_is_exact() => Repeat(500, random =>
    {
        (VmSpec spec, HostTopology host) = Pair(random, id => id);
        NumaFitResult fit = Map(spec, host);
        Assert.True(fit.IsExact, fit.Text);
        Assert.Same(spec, fit.Spec);
        Assert.Equal(100, fit.Distances.Percent);
    });

    [Fact]
    public void On_a_host_whose_nodes_have_other_numbers_and_another_order_vnodes_map_one_to_one_with_their_distances() =>
        Repeat(500, random =>
        {
            int[] numbers = [.. Enumerable.Range(20, 8).OrderBy(_ => random.Next())];
            (VmSpec spec, HostTopology host) = Pair(random, id => numbers[id]);
            NumaFitResult fit = Map(spec, host);
            Assert.All(fit.Vnodes, v => Assert.Equal(FitOutcome.Moved, v.Outcome));
            Assert.Equal(fit.Vnodes.Count, fit.Vnodes.Select(v => v.Shares.Single().Node).Distinct().Count());
            Assert.Equal(100, fit.Distances.Percent);
            for (int i = 0; i < fit.Vnodes.Count; i++)
            {
                for (int j = 0; j < fit.Vnodes.Count; j++)
                {
                    Assert.Equal(spec.Numa!.Distances![i][j], HostTopology.Distance(Of(host, fit, i), Of(host, fit, j), host.Nodes));
                }
            }
        });

    [Fact]
    public void Whatever_host_and_topology_nothing_is_given_twice_and_what_can_lie_whole_does() => Repeat(3000, random =>
    {
        HostTopology host = RandomHost(random);
        VmSpec spec = RandomSpec(random, most: 4);
        HugePagePool[] pools = [.. host.Nodes.Where(_ => random.Next(2) == 0)
            .Select(n => new HugePagePool(n.Id, 2 << 20, 4096, (ulong)random.Next(2048)))];
        NumaFitResult fit = NumaFit.Map(spec, host, pools);
        Assert.Equal(fit.Text, NumaFit.Map(spec, host, pools).Text);
        Assert.InRange(fit.Distances.Percent, 0, 100);
        Assert.Equal(
            spec.EffectiveVnodes.Select(v => (v.Memory, v.MaxMemory, v.PageSize, NumberSet.Format(v.Cpus))),
            fit.Spec.EffectiveVnodes.Select(v => (v.Memory, v.MaxMemory, v.PageSize, NumberSet.Format(v.Cpus))));
        Assert.Same(spec.Numa!.Distances, fit.Spec.Numa!.Distances);
        foreach (ulong page in (ulong[])[4096, 2 << 20])
        {
            Dictionary<int, ulong> room = host.Nodes.ToDictionary(n => n.Id, n => n.TotalBytes == 0 ? 0
                : page == 4096 ? n.AvailableBytes
                : pools.Where(p => p.Node == n.Id).Aggregate(0UL, (sum, p) => sum + (p.Free << 21)));
            ulong free = room.Values.Aggregate(0UL, (sum, bytes) => sum + bytes);
            int[] mine = [.. Enumerable.Range(0, fit.Vnodes.Count).Where(i => spec.EffectiveVnodes[i].PageSize == page)];
            ulong need = mine.Aggregate(0UL, (sum, i) => sum + spec.EffectiveVnodes[i].Memory);
            Assert.True(need > free || mine.All(i => fit.Vnodes[i].Outcome != FitOutcome.NoRoom), fit.Text);
            foreach (VnodeFit vnode in mine.Select(i => fit.Vnodes[i]).Where(v => v.Outcome != FitOutcome.NoRoom && v.Shares.Count > 0))
            {
                Assert.Equal(spec.EffectiveVnodes[vnode.Vnode].Memory.Bytes, vnode.Shares.Aggregate(0UL, (sum, s) => sum + s.Bytes));
                foreach (NodeShare share in vnode.Shares)
                {
                    Assert.True(share.Bytes % page == 0 && share.Bytes <= room[share.Node], fit.Text);
                    room[share.Node] -= share.Bytes;
                }
            }
        }

        if (Whole(spec, host, pools))
        {
            Assert.All(fit.Vnodes, v => Assert.True(v.Outcome is FitOutcome.Exact or FitOutcome.Moved, fit.Text));
            Assert.DoesNotContain(SpecValidation.Validate(fit.Spec),
                p => p.Path.Contains("hostNodes", StringComparison.Ordinal) || p.Path.Contains("policy", StringComparison.Ordinal));
        }
    });

    [Fact]
    public void The_largest_topologies_are_mapped_too()
    {
        Random random = new(5);
        VmSpec spec = RandomSpec(random, most: SpecValidation.MaxVnodes, least: SpecValidation.MaxVnodes);
        HostTopology host = Host(
            [.. Enumerable.Range(0, 64).Select(i => Node(i * 3, 2, 4096, [.. Enumerable.Range(0, 64).Select(j => i == j ? 10 : 20)]))]);
        Assert.All(NumaFit.Map(spec, host, [.. host.Nodes.Select(n => new HugePagePool(n.Id, 2 << 20, 2000, 2000))]).Vnodes,
            v => Assert.NotEqual(FitOutcome.NoRoom, v.Outcome));
    }

    /// <summary>Whether every vnode can lie whole on one node; all ways are tried.</summary>
    private static bool Whole(VmSpec spec, HostTopology host, HugePagePool[] pools)
    {
        IReadOnlyList<VnodeSpec> vnodes = spec.EffectiveVnodes;
        Dictionary<(int, ulong), ulong> left = [];
        foreach (HostNode node in host.Nodes)
        {
            left[(node.Id, 4096)] = node.AvailableBytes;
            left[(node.Id, 2 << 20)] = pools.Where(p => p.Node == node.Id).Aggregate(0UL, (sum, p) => sum + (p.Free << 21));
        }

        bool Place(int vnode)
        {
            if (vnode == vnodes.Count)
            {
                return true;
            }

            foreach (HostNode node in host.Nodes.Where(n => n.TotalBytes > 0))
            {
                (int, ulong) key = (node.Id, vnodes[vnode].PageSize);
                if (left[key] >= vnodes[vnode].Memory)
                {
                    left[key] -= vnodes[vnode].Memory;
                    bool placed = Place(vnode + 1);
                    left[key] += vnodes[vnode].Memory;
                    if (placed)
                    {
                        return true;
                    }
                }
            }

            return false;
        }

        return Place(0);
    }

    /// <summary>A topology, and a host that has exactly the nodes it names, under the numbers given.</summary>
    private static (VmSpec Spec, HostTopology Host) Pair(Random random, Func<int, int> number)
    {
        int count = random.Next(2, 7); // one vnode has nothing to compare
        int[] sizes = [.. Enumerable.Range(0, count).Select(_ => random.Next(1, 2048) * 2)],
            cpus = [.. Enumerable.Range(0, count).Select(i => i == 0 ? 1 : random.Next(0, 4))];
        int[][] distances = Symmetric(random, count);
        VnodeSpec[] vnodes = [.. sizes.Select((size, i) => new VnodeSpec
        {
            Cpus = NumberSet.Range(cpus[..i].Sum(), cpus[i]),
            Memory = ByteSize.MiB((ulong)size),
            HostNodes = [i],
            Policy = VnodePolicy.Strict
        })];
        HostNode[] nodes = [.. sizes.Select(
            (size, i) => Node(number(i), cpus[i], size, [.. Enumerable.Range(0, count).OrderBy(number).Select(j => distances[i][j])]))
            .OrderBy(n => n.Id)];
        VmSpec spec = Spec(vnodes);
        return (spec with { Numa = spec.Numa! with { Distances = distances } }, Host(nodes));
    }

    private static VmSpec RandomSpec(Random random, int most, int least = 1)
    {
        int count = random.Next(least, most + 1), cpu = 0;
        VnodeSpec[] vnodes = [.. Enumerable.Range(0, count).Select(_ =>
        {
            int cpus = random.Next(0, 4);
            int[] wanted = [.. Enumerable.Range(0, 8).Where(_ => random.Next(5) == 0)];
            VnodeSpec vnode = new()
            {
                Cpus = NumberSet.Range(cpu, cpus),
                Memory = ByteSize.MiB((ulong)random.Next(cpus > 0 ? 0 : 1, 1500) * 2),
                HostNodes = wanted,
                Policy = wanted.Length == 0 ? VnodePolicy.Auto
                    : wanted.Length == 1 ? (VnodePolicy)random.Next(1, 4)
                    : random.Next(2) == 0 ? VnodePolicy.Strict
                    : VnodePolicy.Interleave,
                PageSize = random.Next(4) == 0 ? ByteSize.MiB(2) : new ByteSize(4096),
            };
            cpu += cpus;
            return vnode;
        })];
        VmSpec spec = Spec(vnodes);
        return random.Next(2) == 0 ? spec : spec with { Numa = spec.Numa! with { Distances = Symmetric(random, count) } };
    }

    private static HostTopology RandomHost(Random random)
    {
        int count = random.Next(1, 9);
        int[] ids = [.. Enumerable.Range(0, 12).OrderBy(_ => random.Next()).Take(count).Order()];
        int[][] distances = Symmetric(random, count);
        return Host([.. ids.Select((id, i) => Node(id, random.Next(0, 5), random.Next(6) == 0 ? 0 : random.Next(1, 2500), distances[i]))]);
    }

    private static int[][] Symmetric(Random random, int count)
    {
        int[][] rows = [.. Enumerable.Range(0, count).Select(_ => new int[count])];
        for (int i = 0; i < count; i++)
        {
            rows[i][i] = 10;
            for (int j = 0; j < i; j++)
            {
                rows[i][j] = rows[j][i] = random.Next(11, 60);
            }
        }

        return rows;
    }

    private static void Repeat(int times, Action<Random> check)
    {
        for (int seed = 0; seed < times; seed++)
        {
            check(new Random(seed));
        }
    }

    private static HostNode Of(HostTopology host, NumaFitResult fit, int vnode) =>
        host.Nodes.Single(n => n.Id == fit.Vnodes[vnode].Shares.Single().Node);

    private static NumaFitResult Map(VmSpec spec, HostTopology host) => NumaFit.Map(spec, host, []);

    private static VmSpec Spec(params VnodeSpec[] vnodes) => new()
    {
        Cpus = Math.Max(1, vnodes.Sum(v => v.Cpus.Count)),
        Memory = new ByteSize(vnodes.Aggregate(0UL, (sum, v) => sum + v.Memory)),
        Boot = new BootSpec { Kernel = "k" },
        Numa = new NumaSpec { Fit = FitWish.Best, Vnodes = vnodes },
    };

    private static VnodeSpec Vnode(int? cpu, int mib, int? node = null) => new()
    {
        Cpus = cpu is { } one ? [one] : [],
        Memory = ByteSize.MiB((ulong)mib),
        HostNodes = node is { } id ? [id] : [],
        Policy = node is null ? VnodePolicy.Auto : VnodePolicy.Strict,
    };

    private static HostTopology Host(params HostNode[] nodes) => HostTopology.Of(nodes);

    private static HostNode Node(int id, int cpus, int mib, params int[] distances) =>
        new(id, NumberSet.Range(id * 16, cpus), (ulong)mib << 20, (ulong)mib << 20, distances);
}
