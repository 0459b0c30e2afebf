using System.Globalization;
using Vmm.Contracts.Control;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>
/// The files of the cpu controller in one control group: v2 (<c>cpu.max</c>, <c>cpu.weight</c>; kernel, admin-guide/cgroup-v2) or v1
/// (<c>cpu.cfs_quota_us</c>, <c>cpu.shares</c>; kernel, scheduler/sched-bwc). What is in force is what they say: a later daemon reads it
/// there.
/// </summary>
internal static class CpuController
{
    /// <summary>
    /// The kernel's default period, microseconds: short enough that a guest with a small quota does not stand still for long.
    /// </summary>
    private const long Period = 100_000;

    /// <summary><c>cpu.shares</c> of a group that nobody gave any, for the default weight.</summary>
    private const long DefaultShares = 1024;

    /// <exception cref="IOException">The kernel does not take it: a quota above that of the group around it, with v1.</exception>
    internal static void Write(string group, bool v2, CpuLimits limits)
    {
        long? quota = limits.QuotaPercent * Period / 100;
        long weight = limits.Weight ?? SpecValidation.DefaultCpuWeight;
        if (v2)
        {
            Put(group, "cpu.max", $"{(quota is { } most ? Text(most) : "max")} {Text(Period)}");
            Put(group, "cpu.weight", Text(weight));
            return;
        }

        Put(group, "cpu.cfs_period_us", Text(Period));
        Put(group, "cpu.cfs_quota_us", Text(quota ?? -1));
        Put(group, "cpu.shares", Text(weight * DefaultShares / SpecValidation.DefaultCpuWeight));
    }

    /// <summary>Takes the quota away, so that what is left to be done is done soon.</summary>
    internal static void Unthrottle(string group, bool v2)
    {
        if (v2)
        {
            Put(group, "cpu.max", "max");
        }
        else
        {
            Put(group, "cpu.cfs_quota_us", "-1");
        }
    }

    /// <exception cref="IOException">There is no such group.</exception>
    internal static CpuLimits Read(string group, bool v2)
    {
        string[] max = v2
            ? File.ReadAllText(Path.Combine(group, "cpu.max")).Split(' ')
            : [Get(group, "cpu.cfs_quota_us"), Get(group, "cpu.cfs_period_us")];
        long? quota = Number(max[0]) is { } microseconds and > 0 && max.Length > 1 && Number(max[1]) is { } period and > 0
            ? microseconds * 100 / period
            : null;
        long weight = v2 ? Number(Get(group, "cpu.weight")) ?? SpecValidation.DefaultCpuWeight
            // Write rounds down
            : ((Number(Get(group, "cpu.shares")) ?? DefaultShares) * SpecValidation.DefaultCpuWeight + (DefaultShares - 1)) / DefaultShares;
        return new CpuLimits((int?)quota, weight == SpecValidation.DefaultCpuWeight ? null : (int)weight);
    }

    /// <exception cref="IOException">There is no such group.</exception>
    internal static CpuThrottling Throttling(string group)
    {
        long periods = 0, throttled = 0, milliseconds = 0;
        foreach (string line in File.ReadLines(Path.Combine(group, "cpu.stat")))
        {
            int space = line.IndexOf(' ', StringComparison.Ordinal);
            long value = space > 0 ? Number(line[(space + 1)..]) ?? 0 : 0;
            switch (space > 0 ? line[..space] : "")
            {
                case "nr_periods":
                    periods = value;
                    break;
                case "nr_throttled":
                    throttled = value;
                    break;
                case "throttled_usec": // v2
                    milliseconds = value / 1000;
                    break;
                case "throttled_time": // v1, nanoseconds
                    milliseconds = value / 1_000_000;
                    break;
            }
        }

        return new CpuThrottling(periods, throttled, milliseconds);
    }

    private static void Put(string group, string file, string text) => File.WriteAllText(Path.Combine(group, file), text);

    private static string Get(string group, string file) => File.ReadAllText(Path.Combine(group, file));

    private static string Text(long value) => value.ToString(CultureInfo.InvariantCulture);

    private static long? Number(string text) =>
        long.TryParse(text.AsSpan().Trim(), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long value) ? value : null;
}
