namespace Vmm.Contracts.Control;

/// <summary>How a topology that is given lies, or would lie, on a host.</summary>
/// <param name="Vnodes">One entry per vnode.</param>
/// <param name="DistancePercent">How well the host keeps the guest's order of distances: 100 is wholly, or nothing to compare.</param>
/// <param name="Distances">The same in words.</param>
public sealed record NumaFitInfo(IReadOnlyList<VnodeFitInfo> Vnodes, int DistancePercent, string Distances);

/// <summary>How one vnode lies.</summary>
/// <param name="Vnode">Its number.</param>
/// <param name="Outcome"><c>exact</c>, <c>moved</c>, <c>split</c> or <c>no-room</c>.</param>
/// <param name="Wanted">Host nodes it names, in list form; empty is none.</param>
/// <param name="Shares">How much of it is to lie where; empty is anywhere.</param>
/// <param name="Text">The same in words.</param>
public sealed record VnodeFitInfo(int Vnode, string Outcome, string Wanted, IReadOnlyList<NodeBytes> Shares, string Text);
