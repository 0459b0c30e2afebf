namespace Vmm.Contracts.Control;

/// <summary>
/// How much time on host CPUs the whole worker of a VM gets: its vCPUs, its I/O threads, itself. What is null is not limited.
/// </summary>
/// <param name="QuotaPercent">Most time, in percent of one CPU: 150 is one and a half CPUs.</param>
/// <param name="Weight">Share beside other VMs when there are not enough CPUs for all, 1 to 10000; null is 100.</param>
public sealed record CpuLimits(int? QuotaPercent = null, int? Weight = null);

/// <summary>How often a VM had used up its quota, since its worker was started.</summary>
/// <param name="Periods">Periods of the scheduler (100 ms each) in which it ran with a quota.</param>
/// <param name="ThrottledPeriods">Those in which it wanted more than it had.</param>
/// <param name="ThrottledMilliseconds">How long its threads waited for the next period, all together.</param>
public sealed record CpuThrottling(long Periods, long ThrottledPeriods, long ThrottledMilliseconds);
