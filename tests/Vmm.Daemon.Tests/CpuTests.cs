using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Tests;

/// <summary>A VM's time on host CPUs over REST.</summary>
public sealed class CpuTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Fact]
    public async Task The_spec_gives_limits_and_a_running_vm_gets_others_until_its_next_start()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        Assert.Equal(new CpuLimits(150, 200), (await daemon.CreateAsync("web1", "cpuQuota: 150%\ncpuWeight: 200\n")).CpuLimits);
        Assert.Equal(new VmCpu(150, 200, null), await daemon.Client.CpuAsync("web1", s_none));
        await daemon.Client.DoAsync("web1", "start", s_none);
        Assert.Equal(new VmCpu(150, 200, new CpuThrottling(40, 30, 2500)), await daemon.Client.CpuAsync("web1", s_none));
        VmCpu now = await daemon.Client.LimitCpuAsync("web1", new CpuLimits(25), s_none);
        Assert.Equal((25, 100), (now.QuotaPercent, now.Weight));
        await daemon.RestartAsync();
        Assert.Equal(new CpuLimits(25), (await daemon.Client.ShowAsync("web1", s_none)).CpuLimits);
        Assert.Contains(daemon.Host.Vms.Events.Of("web1"), e => e.Kind is "state" or "cpu-limits");
        await daemon.Client.LimitCpuAsync("web1", new CpuLimits(), s_none);
        Assert.Null((await daemon.Client.ShowAsync("web1", s_none)).CpuLimits);
        Assert.Contains(
            (await daemon.Client.EventsOfAsync("web1", s_none)).Events, e => e is { Kind: "cpu-limits", Message: "no quota, weight 100" });
        await daemon.Client.DoAsync("web1", "stop", s_none);
        await daemon.Client.DoAsync("web1", "start", s_none);
        Assert.Equal(new CpuLimits(150, 200), (await daemon.Client.ShowAsync("web1", s_none)).CpuLimits);
    }

    [Fact]
    public async Task A_change_that_cannot_be_is_refused_with_its_reason()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        Assert.Equal((409, "wrong-state"), await Code(() => daemon.Client.LimitCpuAsync("web1", new CpuLimits(25), s_none)));
        await daemon.Client.DoAsync("web1", "start", s_none);
        foreach (CpuLimits wrong in new CpuLimits[] { new(0), new(-1), new(100_001), new(null, 0), new(null, 10_001) })
        {
            Assert.Equal((422, "limits-impossible"), await Code(() => daemon.Client.LimitCpuAsync("web1", wrong, s_none)));
        }

        Assert.Equal(
            (412, "revision-changed"), await Code(() => daemon.Client.LimitCpuAsync("web1", new CpuLimits(25), s_none, revision: 7)));
        Assert.Equal(25, (await daemon.Client.LimitCpuAsync("web1", new CpuLimits(25), s_none, revision: 1)).QuotaPercent);
        Assert.Equal((404, "vm-not-found"), await Code(() => daemon.Client.LimitCpuAsync("web2", new CpuLimits(25), s_none)));
    }

    [Fact]
    public async Task A_host_that_cannot_limit_it_is_named_where_confinement_is_and_again_by_the_next_daemon()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        daemon.Workers.NoCpuLimits = "no controller cpu below /sys/fs/cgroup";
        await daemon.CreateAsync("web1", "cpuQuota: 50%\n");
        Assert.Contains(
            "no controller cpu",
            Assert.Single((await daemon.Client.DoAsync("web1", "start", s_none)).Confinement!.Missing),
            StringComparison.Ordinal);
        await daemon.RestartAsync();
        VmInfo vm = await daemon.Client.ShowAsync("web1", s_none);
        Assert.Null(vm.CpuLimits);
        Assert.Contains("no controller cpu", Assert.Single(vm.Confinement!.Missing), StringComparison.Ordinal);
        Problem problem = await DaemonFixture.RefusedAsync(() => daemon.Client.LimitCpuAsync("web1", new CpuLimits(25), s_none));
        Assert.Equal((422, "limits-impossible"), (problem.Status, problem.Code));
        Assert.Contains("web1: this host cannot limit its CPU time: no controller cpu", problem.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Metrics_tell_the_quota_and_how_often_it_was_used_up()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1", "cpuQuota: 150%\n");
        await daemon.Client.DoAsync("web1", "start", s_none);
        string metrics = await daemon.GetAsync("/metrics");
        Assert.Contains("vmm_vm_cpu_quota_cpus{vm=\"web1\"} 1.5\n", metrics, StringComparison.Ordinal);
        Assert.Contains("vmm_vm_cpu_throttled_periods_total{vm=\"web1\"} 30\n", metrics, StringComparison.Ordinal);
        Assert.Contains("vmm_vm_cpu_throttled_seconds_total{vm=\"web1\"} 2.5\n", metrics, StringComparison.Ordinal);
        Assert.Equal(new CpuThrottling(40, 30, 2500), (await daemon.Client.StatsAsync("web1", s_none)).Throttling);
    }

    private static async Task<(int, string)> Code(Func<Task> request)
    {
        Problem problem = await DaemonFixture.RefusedAsync(request);
        return (problem.Status, problem.Code);
    }
}
