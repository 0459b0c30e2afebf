using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Placement;

/// <summary>
/// Maps a guest's topology, which stays as it is, onto a host that may have other nodes than the spec names: fewer, others, of other sizes
/// and distances. When the spec can be had as it is, that is the answer. Else every vnode lies whole on one node if that can be found, none
/// gets more than it has available, and among such mappings the best has vCPUs beside their memory and vnodes apart, distances in the
/// guest's order (when the spec gives any) and few vnodes elsewhere than they want. What fits nowhere whole is split. A pure function,
/// deterministic, and total.
/// </summary>
public static class NumaFit
{
    /// <summary>The mapping of a spec with vnodes. Nothing is refused: <see cref="Require"/> does.</summary>
    /// <param name="spec">A validated spec with <see cref="NumaSpec.Vnodes"/>.</param>
    /// <param name="host">The host's nodes, with what is available.</param>
    /// <param name="pools">The host's huge pages.</param>
    /// <param name="cancellation">Ends the search for the best mapping.</param>
    /// <exception cref="OperationCanceledException">Nobody wants it any more.</exception>
    public static NumaFitResult Map(
        VmSpec spec, HostTopology host, IReadOnlyList<HugePagePool> pools, CancellationToken cancellation = default)
    {
        IReadOnlyList<VnodeSpec> vnodes = spec.EffectiveVnodes;
        if (host.Nodes.Count == 0 || (vnodes.Count == 1 && vnodes[0].HostNodes.Count == 0))
        {
            return new NumaFitResult(
                spec,
                [.. vnodes.Select((v, i) => new VnodeFit(i, FitOutcome.Exact, v.HostNodes, [], "anywhere, as the spec has no wish"))],
                NumaFitDistances.NotAsked);
        }

        NumaFitProblem problem = new(vnodes, spec.Numa?.Distances, host, pools);
        IReadOnlyList<NodeShare>[] shares = NumaFitFlow.AsWanted(problem) ?? new NumaFitSearch(problem, cancellation).Run()
            ?? NumaFitSplit.Run(problem);
        VnodeFit[] fits = [.. vnodes.Select((_, i) => NumaFitText.Of(problem, i, shares[i]))];
        return new NumaFitResult(Placed(spec, problem, fits), fits, NumaFitDistances.Of(spec.Numa?.Distances, shares, host));
    }

    /// <summary>Refuses a mapping in which a vnode has no room that must have it: one with policy strict, or of huge pages.</summary>
    /// <exception cref="HostMismatchException">There is such a vnode; the message has the numbers.</exception>
    public static void Require(NumaFitResult fit, HostTopology host)
    {
        VnodeFit[] without = [.. fit.Vnodes.Where(
            v => v.Outcome == FitOutcome.NoRoom && (fit.Spec.EffectiveVnodes[v.Vnode].Policy == VnodePolicy.Strict
                || fit.Spec.EffectiveVnodes[v.Vnode].PageSize > ByteSize.BytesPerPage))];
        if (without.Length > 0)
        {
            throw new HostMismatchException($"{fit.Spec.Name}: {string.Join("; ", without.Select(v => $"vnode {v.Vnode} {v.Text}"))} "
                + $"(available: {NumaProjection.Describe(host.Nodes)}): take less, or a policy other than strict");
        }
    }

    private static VmSpec Placed(VmSpec spec, NumaFitProblem problem, VnodeFit[] fits)
    {
        bool Stays(VnodeFit fit) => fit.Outcome is FitOutcome.Exact or FitOutcome.NoRoom && problem.IsDefault(fit.Vnode, fit.Shares);
        return spec.Numa is not { } numa || fits.All(Stays)
            ? spec
            : spec with { Numa = numa with { Vnodes = [.. numa.Vnodes.Select((v, i) => Stays(fits[i]) ? v : Placed(v, fits[i]))] } };
    }

    private static VnodeSpec Placed(VnodeSpec vnode, VnodeFit fit)
    {
        int[] nodes = [.. fit.Shares.Select(s => s.Node).Order()];
        // The kind of wish stays: must be there, or should. Page by page over one node, or over nodes of unlike room, is neither.
        VnodePolicy policy = vnode.Policy == VnodePolicy.Strict ? VnodePolicy.Strict : VnodePolicy.Preferred;
        return vnode with { HostNodes = nodes, Policy = policy, Shares = fit.Outcome == FitOutcome.Split ? fit.Shares : null };
    }
}
