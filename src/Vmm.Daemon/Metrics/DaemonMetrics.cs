using System.Collections.Concurrent;
using System.Globalization;
using Microsoft.AspNetCore.Http;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Balancer;
using Vmm.Daemon.Pressure;
using Vmm.Daemon.Vms;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Metrics;

/// <summary>What <c>/metrics</c> tells: the daemon, its requests, and every VM with the counters of its worker.</summary>
/// <param name="vms">The VMs.</param>
/// <param name="balancer">The balancer.</param>
/// <param name="pressure">The pressure loop.</param>
/// <param name="refusals">What was refused.</param>
/// <param name="more">Writes families of other parts.</param>
internal sealed class DaemonMetrics(
    VmManager vms, BalancerService balancer, PressureService pressure, Refusals refusals, params Action<MetricsText>[] more)
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(2);

    private readonly ConcurrentDictionary<(string Route, string Method, int Status), long> _requests = new();

    /// <summary>Counts an answer. The route is the pattern, not the path: names of VMs would make endless series.</summary>
    internal void Answered(string route, string method, int status) =>
        _requests.AddOrUpdate((route, Known(method), status), 1, (_, n) => n + 1);

    /// <summary>Answers with the text.</summary>
    internal async Task AnswerAsync(HttpContext context)
    {
        context.Response.ContentType = MetricsText.ContentType;
        await context.Response.WriteAsync(
            await TextAsync(context.RequestAborted).ConfigureAwait(false), context.RequestAborted).ConfigureAwait(false);
    }

    internal async Task<string> TextAsync(CancellationToken cancellation)
    {
        IReadOnlyList<VmInfo> all = vms.List().Vms;
        (string Name, WorkerStats? Stats)[] stats = await Task.WhenAll(all.Where(v => v.WorkerProcessId is not null)
            .Select(v => StatsAsync(v.Name, cancellation))).ConfigureAwait(false);
        (string Name, WorkerStats Stats)[] answered = [.. stats.Where(s => s.Stats is not null).Select(s => (s.Name, s.Stats!))];
        MetricsText text = new();
        AddDaemon(text);
        AddRequests(text);
        AddStates(text, all);
        AddBalancer(text);
        AddWorkers(text);
        AddPromises(text);
        AddPressure(text);
        AddPaging(text, [.. answered.Where(a => a.Stats.Paging is not null).Select(a => (a.Name, a.Stats.Paging!))]);
        AddRestores(text, [.. answered.Where(a => a.Stats.Restore is not null).Select(a => (a.Name, a.Stats.Restore!))]);
        AddRestarts(text, all);
        AddCpuTime(text, all, answered);
        Each(text, answered, "vmm_vm_resident_bytes", "gauge", "Resident memory of the VM's worker, guest memory included",
            s => s.ResidentBytes);
        Each(text, answered, "vmm_vm_exits_total", "counter", "KVM exits to user space", s => s.Exits);
        Devices(text, answered);
        AddLatencies(text, answered);
        Array.ForEach(more, add => add(text));
        return text.ToString();
    }

    private static void AddDaemon(MetricsText text)
    {
        text.Family("vmm_info", "gauge", "This daemon");
        text.Sample("vmm_info", 1, ("version", DaemonOptions.Version));
        text.Family("vmm_process_cpu_seconds_total", "counter", "CPU time of the daemon itself");
        text.Sample("vmm_process_cpu_seconds_total", Environment.CpuUsage.TotalTime.TotalSeconds);
        text.Family("vmm_process_resident_bytes", "gauge", "Resident memory of the daemon itself");
        text.Sample("vmm_process_resident_bytes", Environment.WorkingSet);
    }

    private void AddRequests(MetricsText text)
    {
        text.Family("vmm_http_requests_total", "counter", "Answers, by route, method and status");
        foreach (((string route, string method, int status), long count) in _requests.OrderBy(r => r.Key))
        {
            text.Sample("vmm_http_requests_total", count, ("route", route), ("method", method),
                ("status", status.ToString(CultureInfo.InvariantCulture)));
        }

        text.Family("vmm_refused_total", "counter",
            "Requests, connections and handshakes that were refused before anybody did anything, by reason");
        foreach ((string code, long count) in refusals.Totals.OrderBy(r => r.Key, StringComparer.Ordinal))
        {
            text.Sample("vmm_refused_total", count, ("code", code));
        }
    }

    private static void AddStates(MetricsText text, IReadOnlyList<VmInfo> vms)
    {
        text.Family("vmm_vms", "gauge", "VMs by state");
        foreach (VmState state in Enum.GetValues<VmState>())
        {
            text.Sample("vmm_vms", vms.Count(v => v.State == state), ("state", state.Word()));
        }
    }

    private void AddBalancer(MetricsText text)
    {
        text.Family("vmm_balancer_rounds_total", "counter", "How often the balancer looked at the VMs");
        text.Sample("vmm_balancer_rounds_total", balancer.Info.Rounds);
        text.Family("vmm_balancer_bytes_total", "counter", "Memory that vnodes were asked to take or to give back");
        text.Sample("vmm_balancer_bytes_total", balancer.Moved.Grown, ("direction", "grow"));
        text.Sample("vmm_balancer_bytes_total", balancer.Moved.Shrunk, ("direction", "shrink"));
    }

    private void AddWorkers(MetricsText text)
    {
        text.Family("vmm_workers_ready", "gauge", "Workers that wait for a VM");
        text.Sample("vmm_workers_ready", vms.Workers.Ready);
        text.Family("vmm_worker_starts_total", "counter", "Worker processes started, by how that came out");
        text.Sample("vmm_worker_starts_total", vms.Workers.Started, ("outcome", "started"));
        text.Sample("vmm_worker_starts_total", vms.Workers.Failed, ("outcome", "failed"));
    }

    private void AddPromises(MetricsText text)
    {
        (ulong promised, ulong? limit) = vms.PromisedMemory;
        text.Family("vmm_host_promised_bytes", "gauge", "Memory promised to VMs that run: resident limits, or all they have");
        text.Sample("vmm_host_promised_bytes", promised);
        text.Family("vmm_host_promise_limit_bytes", "gauge", "Most that may be promised: the host's memory times the overcommit ratio");
        if (limit is { } most)
        {
            text.Sample("vmm_host_promise_limit_bytes", most);
        }
    }

    /// <summary>How the host's memory stands, and what the pressure loop did.</summary>
    private void AddPressure(MetricsText text)
    {
        PressureInfo now = pressure.Info;
        text.Family("vmm_host_memory_available_bytes", "gauge", "Memory of a host node that is free, or to be had from the kernel at once");
        foreach (PressureNode node in now.Nodes)
        {
            text.Sample("vmm_host_memory_available_bytes", node.AvailableBytes,
                ("node", node.Node.ToString(CultureInfo.InvariantCulture)));
        }

        text.Family("vmm_host_memory_reserve_bytes", "gauge", "What is to stay available of the host's memory");
        text.Sample("vmm_host_memory_reserve_bytes", now.ReserveBytes);
        text.Family("vmm_host_memory_stall_ratio", "gauge", "Time of the last ten seconds in which tasks waited for memory (PSI)");
        if (now is { SomePercent: { } some, FullPercent: { } full })
        {
            text.Sample("vmm_host_memory_stall_ratio", some / 100, ("tasks", "some"));
            text.Sample("vmm_host_memory_stall_ratio", full / 100, ("tasks", "all"));
        }

        text.Family("vmm_pressure_rounds_total", "counter", "How often the pressure loop looked at the host");
        text.Sample("vmm_pressure_rounds_total", now.Rounds);
        text.Family("vmm_pressure_bytes_total", "counter", "By how much resident limits and balloons were changed because of the host");
        text.Sample("vmm_pressure_bytes_total", pressure.Moved.Taken, ("direction", "take"));
        text.Sample("vmm_pressure_bytes_total", pressure.Moved.Given, ("direction", "give"));
    }

    /// <summary>Where the memory of VMs with a resident limit is.</summary>
    private static void AddPaging(MetricsText text, (string Vm, PagingInfo Paging)[] vms)
    {
        foreach (PagingMetric metric in PagingMetric.All)
        {
            text.Family(metric.Name, metric.IsGauge ? "gauge" : "counter", metric.Help);
            foreach ((string vm, PagingInfo paging) in vms)
            {
                text.Sample(metric.Name, metric.Read(paging), ("vm", vm));
            }
        }
    }

    /// <summary>Lazy restores that go on.</summary>
    private static void AddRestores(MetricsText text, (string Vm, MemoryRestoreInfo Restore)[] vms)
    {
        Family("vmm_vm_restore_left_bytes", "gauge", "Memory of a VM that is in the files it is restored from only", r => r.LeftBytes);
        Family("vmm_vm_restore_total_bytes", "gauge", "Memory in these files", r => r.TotalBytes);
        Family("vmm_vm_restore_awaited_bytes_total", "counter", "What of it the guest or a device waited for", r => r.AwaitedBytes);

        void Family(string name, string type, string help, Func<MemoryRestoreInfo, double> read)
        {
            text.Family(name, type, help);
            foreach ((string vm, MemoryRestoreInfo restore) in vms)
            {
                text.Sample(name, read(restore), ("vm", vm));
            }
        }
    }

    private static void AddRestarts(MetricsText text, IReadOnlyList<VmInfo> vms)
    {
        text.Family("vmm_vm_restarts", "gauge", "Starts by the daemon itself since somebody started the VM");
        foreach (VmInfo vm in vms)
        {
            text.Sample("vmm_vm_restarts", vm.Restarts, ("vm", vm.Name));
        }
    }

    /// <summary>CPU time, and of VMs with a quota how often it held them back.</summary>
    private static void AddCpuTime(MetricsText text, IReadOnlyList<VmInfo> vms, (string Name, WorkerStats Stats)[] answered)
    {
        Each(text, answered, "vmm_vm_cpu_seconds_total", "counter", "CPU time of the VM's worker", s => s.CpuMilliseconds / 1000.0);
        text.Family("vmm_vm_cpu_quota_cpus", "gauge", "CPUs of time that a VM with a quota may have");
        foreach (VmInfo vm in vms)
        {
            if (vm.CpuLimits?.QuotaPercent is { } percent)
            {
                text.Sample("vmm_vm_cpu_quota_cpus", percent / 100.0, ("vm", vm.Name));
            }
        }

        (string, WorkerStats)[] limited = [.. answered.Where(a => a.Stats.Throttling is not null)];
        Each(text, limited, "vmm_vm_cpu_periods_total", "counter", "Periods of the scheduler in which the VM ran with a CPU quota",
            s => s.Throttling!.Periods);
        Each(text, limited, "vmm_vm_cpu_throttled_periods_total", "counter", "Those of them in which it wanted more than its quota",
            s => s.Throttling!.ThrottledPeriods);
        Each(
            text,
            limited,
            "vmm_vm_cpu_throttled_seconds_total",
            "counter",
            "Time that its threads waited for their next period, all together",
            s => s.Throttling!.ThrottledMilliseconds / 1000.0);
    }

    /// <summary>A histogram for each disk and stage; bounds are inclusive in this format, and no request lies on one.</summary>
    private static void AddLatencies(MetricsText text, (string Name, WorkerStats Stats)[] vms)
    {
        const string Family = "vmm_disk_latency_seconds";
        text.Family(Family, "histogram", "How long requests were held before storage (wait), and with it (storage)");
        foreach ((string vm, WorkerStats stats) in vms)
        {
            foreach (DiskStats disk in stats.Disks)
            {
                AddLatency(text, Family, vm, disk.Name, "wait", disk.Wait);
                AddLatency(text, Family, vm, disk.Name, "storage", disk.Storage);
            }
        }
    }

    private static void AddLatency(MetricsText text, string family, string vm, string disk, string stage, LatencyStats? latency)
    {
        if (latency is null)
        {
            return;
        }

        long below = 0;
        for (int i = 0; i < latency.Counts.Count; i++)
        {
            below += latency.Counts[i];
            string bound = i == latency.Counts.Count - 1 ? "+Inf" : (Math.ScaleB(1, i) / 1e6).ToString("R", CultureInfo.InvariantCulture);
            text.Sample(family + "_bucket", below, ("vm", vm), ("disk", disk), ("stage", stage), ("le", bound));
        }

        text.Sample(family + "_sum", latency.Microseconds / 1e6, ("vm", vm), ("disk", disk), ("stage", stage));
        text.Sample(family + "_count", below, ("vm", vm), ("disk", disk), ("stage", stage));
    }

    private async Task<(string Name, WorkerStats? Stats)> StatsAsync(string name, CancellationToken cancellation)
    {
        try
        {
            return (name, await vms.Get(name).Controls.StatsAsync(cancellation).WaitAsync(s_patience, cancellation).ConfigureAwait(false));
        }
#pragma warning disable CA1031 // Gone, stuck, or a worker that answers what nobody thought of: the others are told all the same.
        catch (Exception) when (!cancellation.IsCancellationRequested)
#pragma warning restore CA1031
        {
            return (name, null);
        }
    }

    private static void Each(
        MetricsText text, (string Name, WorkerStats Stats)[] vms, string name, string type, string help, Func<WorkerStats, double> value)
    {
        text.Family(name, type, help);
        foreach ((string vm, WorkerStats stats) in vms)
        {
            text.Sample(name, value(stats), ("vm", vm));
        }
    }

    /// <summary>What devices count, family by family; nothing of a worker that does not tell.</summary>
    private static void Devices(MetricsText text, (string Name, WorkerStats Stats)[] vms)
    {
        foreach (DeviceStatsKind kind in DeviceStatsKind.All)
        {
            (string Vm, DeviceCounters Device)[] devices = [.. vms.SelectMany(
                vm => kind.Read(vm.Stats).Select(device => (vm.Name, device)))];
            foreach (MetricFamily family in kind.Families)
            {
                text.Family(family.Name, family.IsGauge ? "gauge" : "counter", family.Help);
                foreach ((string vm, DeviceCounters device) in devices)
                {
                    foreach (CounterValue counter in device.Counters)
                    {
                        if (counter.Family == family && counter.Value is { } value)
                        {
                            text.Sample(family.Name, value, ("vm", vm), (kind.Kind, device.Device), counter.Label);
                        }
                    }
                }
            }
        }
    }

    private static string Known(string method) =>
        method is "GET" or "HEAD" or "POST" or "PUT" or "DELETE" or "PATCH" or "OPTIONS" ? method : "other";
}
