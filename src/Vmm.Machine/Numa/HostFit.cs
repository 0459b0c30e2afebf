using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;

namespace Vmm.Machine.Numa;

/// <summary>Gives a spec the vnodes that fit this host.</summary>
internal static class HostFit
{
    /// <summary>The spec with the vnodes it has on this host, which can hold them.</summary>
    internal static VmSpec Project(VmSpec spec, out NumaFitResult? fit)
    {
        HostTopology host = HostTopology.Read();
        fit = null;
        if (spec.Numa is { Fit: FitWish.Best })
        {
            fit = NumaFit.Map(spec, host, HugePagePool.Read());
            NumaFit.Require(fit, host);
            return fit.Spec;
        }

        spec = NumaProjection.Apply(spec, host);
        CheckNearness(spec);
        NumaAdmission.Check(spec, host);
        return spec;
    }

    /// <summary>Devices name vnodes; how many a topology that follows the host has is known only now.</summary>
    private static void CheckNearness(VmSpec spec)
    {
        int count = spec.EffectiveVnodes.Count, most = Math.Max(spec.Disks.Max(d => d.Vnode) ?? 0, spec.Nets.Max(n => n.Vnode) ?? 0);
        if (most >= count)
        {
            throw new HostMismatchException(
                $"{spec.Name}: a device names vnode {most}, and the topology that follows this host has {count} (0-{count - 1}): "
                + "give numa a count, or vnodes");
        }
    }
}
