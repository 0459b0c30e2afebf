namespace Vmm.Daemon.Balancer;

/// <summary>
/// One vnode as it is. A vnode whose memory is fixed, or that is not the balancer's, only counts as memory that its host node has promised.
/// </summary>
/// <param name="Vm">Name of the VM.</param>
/// <param name="Vnode">Number of the vnode.</param>
/// <param name="HostNode">Host node it lies on; null: anywhere.</param>
/// <param name="Least">Bytes it cannot go below.</param>
/// <param name="Most">Bytes it cannot go beyond.</param>
/// <param name="Asked">Bytes the guest was asked to have.</param>
/// <param name="Present">Bytes it has.</param>
/// <param name="Block">Bytes it grows and shrinks by, counted from <paramref name="Least"/>.</param>
/// <param name="Weight">Share when there is not enough for all, 1 to 10000.</param>
/// <param name="Available">Bytes the guest could use without swapping; null: not known, and then it is left alone.</param>
/// <param name="Stall">Share of the last ten seconds in which some task waited for memory (PSI), 0 to 1; null: not known.</param>
/// <param name="Balanced">The balancer may change it.</param>
/// <param name="ByBalloon">It shrinks by a balloon: page by page out of a guest at work, that may take them back when it runs out of
/// memory.</param>
public sealed record VnodeSample(
    string Vm, int Vnode, int? HostNode, ulong Least, ulong Most, ulong Asked, ulong Present, ulong Block, int Weight, ulong? Available,
    double? Stall, bool Balanced = true, bool ByBalloon = false);

/// <summary>One host node as it is.</summary>
/// <param name="Node">Its number.</param>
/// <param name="Total">Bytes of memory.</param>
/// <param name="Available">Bytes that programs could get.</param>
public sealed record HostSample(int Node, ulong Total, ulong Available);

/// <summary>Everything a decision depends on but what was decided before.</summary>
/// <param name="Vnodes">All vnodes of running VMs.</param>
/// <param name="Hosts">All host nodes.</param>
public sealed record BalancerSnapshot(IReadOnlyList<VnodeSample> Vnodes, IReadOnlyList<HostSample> Hosts);

/// <summary>What a vnode is to be asked for, and why.</summary>
/// <param name="Vm">Name of the VM.</param>
/// <param name="Vnode">Number of the vnode.</param>
/// <param name="From">Bytes it is asked for now.</param>
/// <param name="To">Bytes it shall be asked for.</param>
/// <param name="Reason">With the numbers.</param>
public sealed record BalancerDecision(string Vm, int Vnode, ulong From, ulong To, string Reason);

/// <summary>What the policy remembers of each vnode from round to round.</summary>
public sealed class BalancerState
{
    internal Dictionary<(string Vm, int Vnode), VnodeMemo> Vnodes { get; } = [];

    internal sealed class VnodeMemo
    {
        /// <summary>When its target was last changed by the policy.</summary>
        internal TimeSpan Changed { get; set; } = TimeSpan.MinValue;

        /// <summary>No shrinking before.</summary>
        internal TimeSpan NoShrinkBefore { get; set; } = TimeSpan.MinValue;

        /// <summary>How long shrinking rests after the next time it goes wrong.</summary>
        internal TimeSpan Rest { get; set; }

        /// <summary>Since when it has more than it needs; null: it has not.</summary>
        internal TimeSpan? SpareSince { get; set; }

        /// <summary>What was present when something last moved, and when that was.</summary>
        internal (ulong Present, TimeSpan At) Progress { get; set; }
    }
}
