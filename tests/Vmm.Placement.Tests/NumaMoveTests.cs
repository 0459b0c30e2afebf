using Vmm.Interop;
using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;

namespace Vmm.Placement.Tests;

public sealed class NumaMoveTests
{
    private static readonly HostTopology s_host = HostTopology.Of(
    [
        new HostNode(0, [0, 1], 8UL << 30, 1UL << 30, [10, 21]) { AvailableBytes = 2UL << 30 },
        new HostNode(1, [2, 3], 8UL << 30, 4UL << 30, [21, 10]) { AvailableBytes = 6UL << 30 },
        new HostNode(2, [4], 0, 0, [30, 30]),
    ]);

    private static readonly HugePagePool[] s_pools = [new(0, 2 << 20, 512, 100), new(1, 2 << 20, 0, 0), new(1, 1 << 30, 4, 4)];

    [Theory]
    [InlineData("0", 2UL << 30, 4096UL, null)]
    [InlineData(
        "0",
        (2UL << 30) + 1,
        4096UL,
        "2048 MiB would have to go to host node 0, which has 2048 MiB available (all: node 0 2048 MiB, node 1 6144 MiB")]
    [InlineData("0-1", 8UL << 30, 4096UL, null)]
    [InlineData("3", 1UL, 4096UL, "host nodes '3' are not all there: this host has memory on 0-1")]
    [InlineData("0,9", 1UL, 4096UL, "host nodes '0,9' are not all there")]
    [InlineData("2", 1UL, 4096UL, "host nodes '2' are not all there")]
    [InlineData("", 1UL, 4096UL, "host nodes '' are not all there")]
    [InlineData("0", 200UL << 20, 2UL << 20, null)]
    [InlineData("0", 202UL << 20, 2UL << 20, "101 huge pages of 2 MiB would have to go to host node 0, which has 100 free")]
    [InlineData("1", 2UL << 20, 2UL << 20, "1 huge pages of 2 MiB would have to go to host node 1, which has 0 free")]
    [InlineData("1", 4UL << 30, 1UL << 30, null)]
    public void A_move_is_refused_with_the_numbers(string nodes, ulong bytes, ulong page, string? refusal)
    {
        Assert.True(NumberSet.TryParse(nodes, 64, out IReadOnlyList<int> to));
        HostMismatchException? refused =
            Record.Exception(() => NumaAdmission.CheckMove("web1, vnode 1", to, bytes, page, s_host, s_pools)) as HostMismatchException;
        Assert.Equal(refusal is null, refused is null);
        Assert.Contains(refusal ?? "", refused?.Message ?? "", StringComparison.Ordinal);
    }

    [Fact]
    public void Without_numa_there_is_nowhere_to_move_to() =>
        Assert.Contains(
            "no NUMA",
            Assert.Throws<HostMismatchException>(() => NumaAdmission.CheckMove("x", [0], 1, 4096, HostTopology.Unknown, [])).Message,
            StringComparison.Ordinal);

    [Theory]
    [InlineData(null, 1, MemoryPolicyMode.Preferred)]
    [InlineData(null, 2, MemoryPolicyMode.Bind)]
    [InlineData(MemoryPolicyMode.Preferred, 1, MemoryPolicyMode.Preferred)]
    [InlineData(MemoryPolicyMode.Preferred, 2, MemoryPolicyMode.Bind)] // the kernel's MPOL_PREFERRED takes one node
    [InlineData(MemoryPolicyMode.Bind, 1, MemoryPolicyMode.Bind)]
    [InlineData(MemoryPolicyMode.Interleave, 3, MemoryPolicyMode.Interleave)]
    public void The_kind_of_policy_stays(MemoryPolicyMode? policy, int nodes, MemoryPolicyMode expected) =>
        Assert.Equal(expected, NumaPlacement.PolicyFor(policy, nodes));

    [Theory]
    [InlineData("auto")]
    [InlineData("default")]
    public void Auto_is_the_name_of_no_wish_and_default_its_older_one(string word)
    {
        VmSpec spec = SpecReader.Read(
            "name: x\nboot: {kernel: k}\nnuma:\n  vnodes:\n"
                + $"    - {{cpus: 0, memory: 64MiB, policy: {word}}}\n    - {{cpus: 1, memory: 64MiB}}\n",
            "test",
            null);
        Assert.All(spec.EffectiveVnodes, v => Assert.Equal(VnodePolicy.Auto, v.Policy));
        Assert.Equal(
            [(0, MemoryPolicyMode.Preferred), (1, MemoryPolicyMode.Preferred)],
            NumaPlacement.Place(spec, HostTopology.Of([s_host.Nodes[0], s_host.Nodes[1]]))
                .Select(h => (h.Memory.HostNodes.Single(), h.Memory.Policy!.Value)));
    }
}
