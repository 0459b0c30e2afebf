using System.Diagnostics;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Balancer;

namespace Vmm.Perf;

/// <summary>
/// (g) Memory of a running VM: a GiB that comes and goes, a vnode that moves to another host node, and what the balancer costs for a
/// hundred VMs. There is no peer to compare with.
/// </summary>
internal sealed class MemoryBench(Bench bench, string program)
{
    private const ulong MiB = 1 << 20, GiB = 1 << 30;

    internal void Run(Report report)
    {
        Grow(report);
        Balance(report);
    }

    private void Grow(Report report)
    {
        using RunningDaemon daemon = new(program, pool: 1);
        _ = daemon.Launch("mem", bench.Guest("mem"), memoryMiB: 128, "maxMemory: 1152MiB\n");
        List<double> grow = [], shrink = [];
        for (int round = 0; round < (bench.Short ? 1 : 5); round++)
        {
            grow.Add(Change(daemon, (128 * MiB) + GiB));
            shrink.Add(Change(daemon, 128 * MiB));
        }

        report.Note(Row.Invariant($"(g) virtio-mem with a micro-guest that touches every 16th page: grow 1 GiB {Statistics.Median(grow):0} "
            + $"ms, shrink 1 GiB {Statistics.Median(shrink):0} ms (median of {grow.Count})"));
        Move(report, daemon);
        daemon.Forget("mem");
    }

    private static double Change(RunningDaemon daemon, ulong bytes)
    {
        long begin = Stopwatch.GetTimestamp();
        VmMemory memory = daemon.Client.ChangeMemoryAsync("mem", new MemoryWish(0, bytes), TimeSpan.FromSeconds(60), CancellationToken.None)
            .GetAwaiter()
            .GetResult();
        return memory.Settled
            ? Stopwatch.GetElapsedTime(begin).TotalMilliseconds
            : throw new InvalidOperationException($"the guest did not get to {bytes >> 20} MiB in a minute");
    }

    private static void Move(Report report, RunningDaemon daemon)
    {
        HostNuma host = daemon.Client.HostNumaAsync(CancellationToken.None).GetAwaiter().GetResult();
        if (host.Nodes.Count < 2)
        {
            report.Note("(g) moving a vnode: skipped, this host has one NUMA node");
            return;
        }

        _ = Change(daemon, (128 * MiB) + GiB);
        int number = 0;
        foreach (HostNumaNode node in host.Nodes.Take(2).Reverse())
        {
            JobInfo job = daemon.Client.RehomeAsync("mem", 0, new RehomeRequest(Row.Invariant($"{node.Id}")), CancellationToken.None)
                .GetAwaiter()
                .GetResult();
            while ((job = daemon.Client.JobAsync(job.Id, CancellationToken.None).GetAwaiter().GetResult()).State == JobState.Running)
            {
                Thread.Sleep(5);
            }

            RehomeStatus? status = daemon.Client.NumaAsync("mem", CancellationToken.None).GetAwaiter().GetResult().Rehome;
            report.Note(Row.Invariant($"(g) move {++number} of a vnode of 1152 MiB to node {node.Id}: {job.State}, "
                + $"{status?.MovedBytes >> 20} MiB in {status?.Milliseconds} ms"));
        }
    }

    private void Balance(Report report)
    {
        VnodeSample[] vnodes = [.. Enumerable.Range(0, 200)
            .Select(i => new VnodeSample($"vm{i / 2}", i % 2, i % 2, GiB, 8 * GiB, 4 * GiB, 4 * GiB, 2 * MiB, 100,
                i % 3 == 0 ? GiB / 8 : i % 3 == 1 ? 3 * GiB : GiB, 0.01))];
        BalancerSnapshot snapshot = new(vnodes, [new HostSample(0, 1024 * GiB, 200 * GiB), new HostSample(1, 1024 * GiB, GiB)]);
        BalancerState state = new();
        int decisions = 0, rounds = bench.Short ? 50 : 2000;
        for (int i = 0; i < 50; i++)
        {
            decisions = BalancerPolicy.Decide(snapshot, state, new BalancerRules(), TimeSpan.FromSeconds(i)).Count; // compiled by now
        }

        long begin = Stopwatch.GetTimestamp();
        for (int i = 0; i < rounds; i++)
        {
            _ = BalancerPolicy.Decide(snapshot, state, new BalancerRules(), TimeSpan.FromSeconds(100 + i));
        }

        report.Note(Row.Invariant($"(g) the balancer's decision for 100 VMs of 2 vnodes: "
            + $"{Stopwatch.GetElapsedTime(begin).TotalMicroseconds / rounds:0} µs a round ({decisions} changes in it)"));
    }
}
