namespace Vmm.Contracts.Rest;

/// <summary>What the balancer does.</summary>
/// <param name="Enabled">It looks at the VMs.</param>
/// <param name="DryRun">It says what it would do, and does not.</param>
/// <param name="IntervalSeconds">How often it looks.</param>
/// <param name="Rounds">How often it has looked.</param>
/// <param name="Vnodes">What it saw the last time of the VMs it may change.</param>
/// <param name="Decisions">The last ones, oldest first.</param>
public sealed record BalancerInfo(bool Enabled, bool DryRun, int IntervalSeconds, long Rounds, IReadOnlyList<BalancedVnode> Vnodes,
    IReadOnlyList<BalancerEntry> Decisions);

/// <summary>A vnode as the balancer saw it.</summary>
/// <param name="Vm">Name of the VM.</param>
/// <param name="Vnode">Number of the vnode.</param>
/// <param name="AskedBytes">What the guest was asked to have.</param>
/// <param name="PresentBytes">What it has.</param>
/// <param name="AvailableBytes">What it could use without swapping; null when it is not known.</param>
/// <param name="StallPercent">Time in which some task waited for memory, of the last ten seconds; null when it is not known.</param>
/// <param name="Source"><c>agent</c>, <c>balloon</c>, or <c>unknown</c>: then it is left alone.</param>
/// <param name="Pinned">Somebody gave it a size: it is left alone until it is told to be automatic again.</param>
/// <param name="Means"><c>virtio-mem</c>, or <c>balloon</c> for a VM whose memory is fixed.</param>
public sealed record BalancedVnode(string Vm, int Vnode, ulong AskedBytes, ulong PresentBytes, ulong? AvailableBytes, double? StallPercent,
    string Source, bool Pinned, string Means = "virtio-mem");

/// <summary>A decision.</summary>
/// <param name="At">When.</param>
/// <param name="Vm">Name of the VM.</param>
/// <param name="Vnode">Number of the vnode.</param>
/// <param name="FromBytes">What it was asked to have.</param>
/// <param name="ToBytes">What it was to be asked for.</param>
/// <param name="Reason">With the numbers.</param>
/// <param name="Applied">False in a dry run, and when it could not be done.</param>
/// <param name="Problem">Why it could not be done.</param>
public sealed record BalancerEntry(
    DateTimeOffset At, string Vm, int Vnode, ulong FromBytes, ulong ToBytes, string Reason, bool Applied, string? Problem = null);

/// <summary>A change of the balancer until the daemon's next start; what is null stays.</summary>
/// <param name="Enabled">It looks at the VMs.</param>
/// <param name="DryRun">It only says what it would do.</param>
public sealed record BalancerWish(bool? Enabled = null, bool? DryRun = null);
