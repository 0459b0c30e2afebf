using Vmm.Contracts.Rest;
using Vmm.Memory;

namespace Vmm.Cli.Nouns;

/// <summary>The NUMA nodes of this machine, for who runs no daemon.</summary>
internal static class LocalNuma
{
    internal static HostNuma Read()
    {
        IReadOnlyList<HugePagePool> pools = HugePagePool.Read();
        return new HostNuma([.. HostTopology.Read().Nodes
            .Select(n => new HostNumaNode(n.Id, NumberSet.Format(n.Cpus), n.TotalBytes, n.FreeBytes, n.AvailableBytes, n.Distances,
                [.. pools.Where(p => p.Node == n.Id && p.Total > 0).Select(p => new HugePageInfo(p.PageBytes, p.Total, p.Free))], []))]);
    }
}
