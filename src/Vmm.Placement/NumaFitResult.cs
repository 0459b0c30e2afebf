using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Placement;

/// <summary>How a vnode of a given topology came to lie on a given host.</summary>
public enum FitOutcome
{
    /// <summary>On the host nodes it names, or it names none.</summary>
    Exact,

    /// <summary>Whole on one host node, which is another than it names.</summary>
    Moved,

    /// <summary>On several host nodes, because none has room for all of it.</summary>
    Split,

    /// <summary>The host has not enough left for it.</summary>
    NoRoom,
}

/// <summary>One vnode on the host.</summary>
/// <param name="Vnode">Its number.</param>
/// <param name="Outcome">How well it lies.</param>
/// <param name="Wanted">Host nodes the spec names; empty is none.</param>
/// <param name="Shares">How much of it is to lie where; empty is anywhere.</param>
/// <param name="Text">The same in words.</param>
public sealed record VnodeFit(int Vnode, FitOutcome Outcome, IReadOnlyList<int> Wanted, IReadOnlyList<NodeShare> Shares, string Text);

/// <summary>
/// Whether what is nearer to the guest is nearer on the host. Every two pairs of vnodes that the guest's SLIT tells apart are compared.
/// </summary>
/// <param name="Compared">How many comparisons there are.</param>
/// <param name="InOrder">How many of them the host orders as the guest does.</param>
/// <param name="Tied">How many of them are equally far on the host.</param>
/// <param name="Text">The same in words.</param>
public sealed record DistanceFit(int Compared, int InOrder, int Tied, string Text)
{
    /// <summary>100: all in the guest's order, or nothing to compare; 0: all reversed. A tie counts half. Rounded down.</summary>
    public int Percent => Compared == 0 ? 100 : (int)(((200L * InOrder) + (100L * Tied)) / (2L * Compared));
}

/// <summary>A guest's topology mapped onto a host.</summary>
/// <param name="Spec">The spec with the host nodes that were found; its vnodes, sizes, CPUs and distances are as before.</param>
/// <param name="Vnodes">One entry per vnode, in order.</param>
/// <param name="Distances">How well the distances agree.</param>
public sealed record NumaFitResult(VmSpec Spec, IReadOnlyList<VnodeFit> Vnodes, DistanceFit Distances)
{
    /// <summary>Every vnode is where the spec says.</summary>
    public bool IsExact => Vnodes.All(v => v.Outcome == FitOutcome.Exact);

    /// <summary>All of it in one line.</summary>
    public string Text =>
        (IsExact
            ? "every vnode is where the spec says"
            : string.Join("; ", Vnodes.Where(v => v.Outcome != FitOutcome.Exact).Select(v => $"vnode {v.Vnode} {v.Text}")))
        + $"; {Distances.Text}";
}
