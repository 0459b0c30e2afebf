using Vmm.Interop;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Placement;

/// <summary>Where one vnode lives on the host: its memory, and the CPUs its vCPU threads may use (empty: any).</summary>
public sealed record VnodeHome(VnodePlacement Memory, IReadOnlyList<int> HostCpus);

/// <summary>
/// Projects vnodes onto host nodes: as the spec says, else vnode i prefers host node i (wrapping around) when the host has several. A pure
/// function.
/// </summary>
public static class NumaPlacement
{
    /// <summary>True when the projection depends on the host's nodes; reading them takes a few milliseconds of start-up.</summary>
    public static bool NeedsHost(VmSpec spec)
    {
        IReadOnlyList<VnodeSpec> vnodes = spec.EffectiveVnodes;
        return vnodes.Count > 1 || vnodes[0].HostNodes.Count > 0;
    }

    /// <summary>One home per vnode, in order.</summary>
    public static IReadOnlyList<VnodeHome> Place(VmSpec spec, HostTopology host)
    {
        return NeedsHost(spec) ? Project(spec.EffectiveVnodes, host) : Anywhere(spec.EffectiveVnodes[0]);
    }

    /// <summary>
    /// The policy of a vnode on so many host nodes that had <paramref name="policy"/>. Without one it means "there, if there is room"; only
    /// one node can be preferred.
    /// </summary>
    public static MemoryPolicyMode PolicyFor(MemoryPolicyMode? policy, int nodes) =>
        policy is { } kept && (kept != MemoryPolicyMode.Preferred || nodes == 1) ? kept
        : nodes == 1 ? MemoryPolicyMode.Preferred
        : MemoryPolicyMode.Bind;

    /// <summary>The common case, one vnode without a wish, kept apart: it is part of every start.</summary>
    private static VnodeHome[] Anywhere(VnodeSpec vnode)
    {
        VnodeHome[] home = new VnodeHome[1];
        home[0] = new VnodeHome(new VnodePlacement(0, vnode.BootMemory, vnode.PageSize, null, vnode.HostNodes), vnode.HostNodes);
        return home;
    }

    private static List<VnodeHome> Project(IReadOnlyList<VnodeSpec> vnodes, HostTopology host)
    {
        bool spread = vnodes.Count > 1 && host.Nodes.Count > 1;
        List<VnodeHome> homes = [];
        for (int i = 0; i < vnodes.Count; i++)
        {
            VnodeSpec vnode = vnodes[i];
            IReadOnlyList<int> nodes = vnode.HostNodes.Count > 0 ? vnode.HostNodes
                : spread ? [host.Nodes[i % host.Nodes.Count].Id]
                : [];
            MemoryPolicyMode? policy = vnode.Policy switch
            {
                VnodePolicy.Strict => MemoryPolicyMode.Bind,
                VnodePolicy.Preferred => MemoryPolicyMode.Preferred,
                VnodePolicy.Interleave => MemoryPolicyMode.Interleave,
                _ => nodes.Count == 0 ? null : PolicyFor(null, nodes.Count),
            };
            List<int> cpus = [];
            foreach (HostNode node in host.Nodes)
            {
                if (Contains(nodes, node.Id))
                {
                    cpus.AddRange(node.Cpus);
                }
            }

            homes.Add(
                new VnodeHome(new VnodePlacement(i, vnode.BootMemory, vnode.PageSize, policy, nodes) { Shares = vnode.Shares }, cpus));
        }

        return homes;
    }

    private static bool Contains(IReadOnlyList<int> numbers, int wanted)
    {
        foreach (int number in numbers)
        {
            if (number == wanted)
            {
                return true;
            }
        }

        return false;
    }
}
