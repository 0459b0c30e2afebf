using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <content>Its time on host CPUs.</content>
public sealed partial class ManagedVm
{
    /// <summary>What it may have: in force while it runs, else what its next start gives it; null when there is no limit.</summary>
    private CpuLimits? CpuLimits => Bounded(_worker is { } worker ? worker.CpuLimits : Wanted(_spec));

    /// <summary>What is in force, and how often its quota was used up.</summary>
    internal VmCpu Cpu
    {
        get
        {
            lock (_gate)
            {
                CpuLimits? limits = CpuLimits;
                return new VmCpu(limits?.QuotaPercent, limits?.Weight ?? SpecValidation.DefaultCpuWeight, _worker?.CpuThrottling);
            }
        }
    }

    /// <summary>Changes its time on host CPUs until its next start, which takes what the spec says.</summary>
    /// <exception cref="ApiException">It does not run, a number makes no sense, the host cannot limit it, or it was changed meanwhile.</exception>
    internal async Task<VmCpu> LimitCpuAsync(CpuLimits limits, long? revision, CancellationToken cancellation)
    {
        if (limits.QuotaPercent is < 1 or > SpecValidation.MaxCpuQuota || limits.Weight is < 1 or > SpecValidation.MaxCpuWeight)
        {
            throw CpuImpossible($"expected a quota of 1 to {SpecValidation.MaxCpuQuota} percent of one CPU, and a weight of 1 to {SpecValidation.MaxCpuWeight}");
        }

        await InTurn(() =>
        {
            lock (_gate)
            {
                CheckRevision(revision);
                if (Alive().LimitCpu(limits, expected: false) is { } problem)
                {
                    throw CpuImpossible($"this host cannot limit its CPU time: {problem}");
                }

                _events.Publish("cpu-limits", _record.Name, message: Describe(limits));
            }

            return Task.CompletedTask;
        }, cancellation).ConfigureAwait(false);
        return Cpu;
    }

    /// <summary>Of an adopted worker: the kernel kept what was in force. Where it could not be limited, that is said again.</summary>
    private void LearnCpu(IWorker worker)
    {
        if (Wanted(Now().Spec) is { } wanted && worker.CpuLimits is null)
        {
            _ = worker.LimitCpu(wanted, expected: true);
        }
    }

    private static CpuLimits? Wanted(VmSpec? spec) => spec is null ? null : Bounded(new CpuLimits(spec.CpuQuota, spec.CpuWeight));

    private static CpuLimits? Bounded(CpuLimits? limits) => limits is { QuotaPercent: null, Weight: null } ? null : limits;

    private static string Describe(CpuLimits limits) =>
        $"{(limits.QuotaPercent is { } quota ? $"quota {quota}%" : "no quota")}, weight {limits.Weight ?? SpecValidation.DefaultCpuWeight}";

    private ApiException CpuImpossible(string why) => new(422, "limits-impossible", "limits that cannot be", $"{Record.Name}: {why}");
}
