namespace Vmm.Daemon.Pressure;

/// <summary>What the host says of its memory.</summary>
/// <param name="Nodes">Its NUMA nodes, ascending by number; one, number 0, on a kernel without NUMA. None: nothing could be read.</param>
/// <param name="Stall">How much its tasks wait for memory; null: this kernel does not tell.</param>
/// <param name="Problem">What could not be read, and what is used in its place; null: everything was.</param>
internal sealed record HostReading(IReadOnlyList<NodeReading> Nodes, MemoryStall? Stall, string? Problem = null)
{
    /// <summary>All memory, bytes.</summary>
    internal ulong TotalBytes => Nodes.Aggregate(0UL, (sum, node) => sum + node.TotalBytes);

    /// <summary>What programs could get, bytes.</summary>
    internal ulong AvailableBytes => Nodes.Aggregate(0UL, (sum, node) => sum + node.AvailableBytes);
}

/// <summary>The memory of one NUMA node.</summary>
/// <param name="Node">Its number.</param>
/// <param name="TotalBytes">All of it.</param>
/// <param name="AvailableBytes">Free memory, and what the kernel can take back at once: file pages that were not used lately, and
/// reclaimable slabs. At most <paramref name="TotalBytes"/>.</param>
internal sealed record NodeReading(int Node, ulong TotalBytes, ulong AvailableBytes);

/// <summary>Pressure stall information of the last ten seconds (Linux, Documentation/accounting/psi.rst), shares from 0 to 1.</summary>
/// <param name="Some">Time in which some task waited for memory.</param>
/// <param name="Full">Time in which all tasks did.</param>
internal sealed record MemoryStall(double Some, double Full);
