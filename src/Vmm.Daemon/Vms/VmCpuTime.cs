using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>A VM's time on host CPUs. What is in force is in files of its control group, which are read outside any lock.</summary>
internal sealed class VmCpuTime(VmSupervisor vm)
{
    /// <summary>What is in force, and how often its quota was used up.</summary>
    internal VmCpu Current
    {
        get
        {
            IWorker? worker = vm.Worker;
            CpuLimits? limits = LimitsOf(worker);
            return new VmCpu(limits?.QuotaPercent, limits?.Weight ?? SpecValidation.DefaultCpuWeight, worker?.CpuThrottling);
        }
    }

    /// <summary>What it may have: in force while it runs, else what its next start gives it; null when there is no limit.</summary>
    /// <param name="worker">Its worker; null while it has none.</param>
    internal CpuLimits? LimitsOf(IWorker? worker) => NullIfUnlimited(worker is not null ? worker.CpuLimits : OfSpec(vm.Store.Spec));

    /// <summary>Changes its time on host CPUs until its next start, which takes what the spec says.</summary>
    /// <exception cref="ApiException">It does not run, a number makes no sense, the host cannot limit it, or it was changed
    /// meanwhile.</exception>
    internal async Task<VmCpu> LimitAsync(CpuLimits limits, long? revision, CancellationToken cancellation)
    {
        if (limits.QuotaPercent is < 1 or > SpecValidation.MaxCpuQuota || limits.Weight is < 1 or > SpecValidation.MaxCpuWeight)
        {
            throw Impossible($"expected a quota of 1 to {SpecValidation.MaxCpuQuota} percent of one CPU, and a weight of 1 to "
                + $"{SpecValidation.MaxCpuWeight}");
        }

        await vm.Operations.RunAsync(VmOperation.LimitCpu, vm.Name, () =>
        {
            vm.Store.RequireRevision(revision);
            if (vm.RequireWorker().LimitCpu(limits, expected: false) is { } problem)
            {
                throw Impossible($"this host cannot limit its CPU time: {problem}");
            }

            vm.Events.Publish("cpu-limits", vm.Name, message: Describe(limits));
            return Task.CompletedTask;
        }, cancellation).ConfigureAwait(false);
        return Current;
    }

    /// <summary>Of an adopted worker: the kernel kept what was in force. Where it could not be limited, that is said again.</summary>
    internal void Learn(IWorker worker)
    {
        if (OfSpec(vm.Store.Spec) is { } limits && worker.CpuLimits is null)
        {
            _ = worker.LimitCpu(limits, expected: true);
        }
    }

    /// <summary>The VM goes on in another worker, with the limits that are in force.</summary>
    internal void Carry(IWorker from, IWorker to)
    {
        if (from.CpuLimits is { } inForce && inForce != to.CpuLimits)
        {
            _ = to.LimitCpu(inForce, expected: OfSpec(vm.Store.Spec) is not null);
        }
    }

    private static CpuLimits? OfSpec(VmSpec? spec) => spec is null ? null : NullIfUnlimited(new CpuLimits(spec.CpuQuota, spec.CpuWeight));

    private static CpuLimits? NullIfUnlimited(CpuLimits? limits) => limits is { QuotaPercent: null, Weight: null } ? null : limits;

    private static string Describe(CpuLimits limits) =>
        $"{(limits.QuotaPercent is { } quota ? $"quota {quota}%" : "no quota")}, weight {limits.Weight ?? SpecValidation.DefaultCpuWeight}";

    private ApiException Impossible(string why) => new(422, ControlCodes.LimitsImpossible, "limits that cannot be", $"{vm.Name}: {why}");
}
