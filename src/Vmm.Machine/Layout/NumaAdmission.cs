using Vmm.Machine.Spec;
using Vmm.Memory;

namespace Vmm.Machine.Layout;

/// <summary>Refuses a VM whose memory must come from host nodes that cannot hold it now, before its first page is touched. A pure function.</summary>
public static class NumaAdmission
{
    /// <summary>Looks at every vnode with policy strict; the others may take memory from anywhere.</summary>
    /// <exception cref="ArgumentException">A set of host nodes has less than is asked of it; the message has the numbers of all of them.</exception>
    public static void Check(VmSpec spec, HostTopology host)
    {
        List<string> problems = [];
        IReadOnlyList<VnodeSpec> vnodes = spec.EffectiveVnodes;
        foreach (IGrouping<string, VnodeSpec> same in vnodes.Where(v => v.Policy == VnodePolicy.Strict && v.PageSize <= 4096).GroupBy(v => NumberSet.Format(v.HostNodes), StringComparer.Ordinal))
        {
            ulong needed = same.Aggregate(0UL, (sum, v) => sum + v.Memory);
            ulong available = host.Nodes.Where(n => same.First().HostNodes.Contains(n.Id)).Aggregate(0UL, (sum, n) => sum + n.AvailableBytes);
            if (host.Nodes.Count > 0 && needed > available)
            {
                problems.Add($"{needed >> 20} MiB must come from host node {same.Key}, which has {available >> 20} MiB available");
            }
        }

        if (problems.Count > 0)
        {
            throw new ArgumentException($"{spec.Name}: {string.Join("; ", problems)} (all: {NumaProjection.Describe(host.Nodes)}): take less, other nodes, or a policy other than strict", nameof(spec));
        }
    }
}
