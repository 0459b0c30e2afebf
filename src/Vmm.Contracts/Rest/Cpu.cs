using Vmm.Contracts.Control;

namespace Vmm.Contracts.Rest;

/// <summary>A VM's time on host CPUs: in force while it runs, else what its next start gives it.</summary>
/// <param name="QuotaPercent">Most time, in percent of one CPU; null is no quota.</param>
/// <param name="Weight">Share beside other VMs when there are not enough CPUs for all.</param>
/// <param name="Throttling">How often the quota was used up; null while it does not run, or where the host cannot limit it.</param>
public sealed record VmCpu(int? QuotaPercent, int Weight, CpuThrottling? Throttling);
