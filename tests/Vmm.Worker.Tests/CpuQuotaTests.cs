using System.Diagnostics;
using System.Globalization;
using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Testing;
using static Vmm.Worker.Tests.WorkerFixture;

namespace Vmm.Worker.Tests;

/// <summary>
/// Guests that want all the time they can get, under the host's own cpu controller. Only shares of the same run are compared: the machine
/// may be busy.
/// </summary>
[Trait("Tier", "kvm")]
public sealed class CpuQuotaTests
{
    private const string Root = "/sys/fs/cgroup";

    private static bool HasController => File.Exists($"{Root}/cpu/cpu.shares")
        || (File.Exists($"{Root}/cgroup.controllers")
            && File.ReadAllText($"{Root}/cgroup.controllers").Split(' ', '\n').Contains("cpu", StringComparer.Ordinal));

    [KvmFact(NeedsRoot = true)]
    public async Task A_guest_that_spins_gets_its_quota_until_the_quota_is_taken_away()
    {
        await using WorkerFixture fixture = Fixture(pool: 1);
        // on a machine however busy it gets more without
        IWorker free = await SpinAsync(fixture), bounded = await SpinAsync(fixture, quota: 1);
        Assert.Equal(HasController ? new CpuLimits(1) : null, bounded.CpuLimits);
        if (!HasController)
        {
            Assert.Contains(
                bounded.Confinement!.Missing, missing => missing.StartsWith("cpu-limits: no controller cpu", StringComparison.Ordinal));
            return;
        }

        Assert.Contains("cpu-limits", bounded.Confinement!.Applied);
        (double unlimited, double limited) = await ShareAsync(free, bounded);
        Assert.True(limited < unlimited / 2, $"with a quota of 1% it got {limited} ms while one without got {unlimited} ms");
        CpuThrottling throttling = bounded.CpuThrottling!;
        Assert.True(
            throttling is { ThrottledPeriods: > 0, ThrottledMilliseconds: > 0 } && throttling.Periods >= throttling.ThrottledPeriods,
            throttling.ToString());
        Assert.Equal(0, free.CpuThrottling!.ThrottledPeriods);

        Assert.Null(bounded.LimitCpu(new CpuLimits(), expected: false));
        (double other, double released) = await ShareAsync(free, bounded);
        Assert.True(released > other / 4 && released > limited,
            $"without its quota it got {released} ms ({limited} ms before), the other {other} ms");

        Assert.Null(bounded.LimitCpu(new CpuLimits(1), expected: false));
        IReadOnlyList<IWorker> adopted = await fixture.RestartDaemonAsync();
        Assert.Contains(new CpuLimits(1), adopted.Select(w => w.CpuLimits));
    }

    [KvmFact(NeedsRoot = true)]
    public async Task Guests_that_want_the_same_cpu_share_it_by_weight()
    {
        if (!HasController)
        {
            return; // named by the test above
        }

        await using WorkerFixture fixture = Fixture();
        IWorker light = await SpinAsync(fixture), heavy = await SpinAsync(fixture, weight: 1000);
        foreach (IWorker worker in new[] { light, heavy })
        {
            using Process pin =
                Process.Start(new ProcessStartInfo("taskset", ["-acp", "0", worker.ProcessId.ToString(CultureInfo.InvariantCulture)])
                {
                    UseShellExecute = false,
                    RedirectStandardOutput = true
                })!;
            await pin.StandardOutput.ReadToEndAsync(Soon);
            await pin.WaitForExitAsync(Soon);
            Assert.Equal(0, pin.ExitCode);
        }

        (double large, double small) = await ShareAsync(heavy, light);
        Assert.True(large > small * 2.5, $"with ten times the weight it got {large} ms, the other {small} ms");
    }

    [KvmFact(NeedsRoot = true)]
    public async Task A_guest_with_a_tiny_quota_ends_at_once_when_it_is_stopped()
    {
        await using WorkerFixture fixture = Fixture();
        IWorker worker = await SpinAsync(fixture, quota: 1);
        await worker.StopAsync(Soon);
        Assert.Equal(ExitReason.Stopped, (await worker.Ended.WaitAsync(Soon)).Reason); // not killed: it had the time to end
    }

    private static WorkerFixture Fixture(int pool = 0) =>
        new(pool, firstUser: 64_600, change: options => options with { CgroupRoot = Root });

    private static async Task<IWorker> SpinAsync(WorkerFixture fixture, int? quota = null, int? weight = null)
    {
        IWorker worker = await fixture.LaunchAsync(SpecOf("spin", "ticks=0 every=5000000") with { CpuQuota = quota, CpuWeight = weight });
        await using Stream console = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        await ReadUntilAsync(console, "TICK spin 1");
        return worker;
    }

    /// <summary>CPU time of both over the same while, as the kernel counts it: until the first has had enough to compare with.</summary>
    private static async Task<(double First, double Second)> ShareAsync(IWorker first, IWorker second)
    {
        const double Enough = 600;
        double one = Used(first), two = Used(second);
        CancellationToken limit = Soon;
        while (Used(first) - one < Enough)
        {
            await Task.Delay(100, limit);
        }

        return (Used(first) - one, Used(second) - two);
    }

    private static double Used(IWorker worker)
    {
        using Process process = Process.GetProcessById(worker.ProcessId);
        return process.TotalProcessorTime.TotalMilliseconds;
    }
}
