using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Memory;
using Vmm.Placement;

namespace Vmm.Daemon.Tests;

/// <summary>Who is where over REST, and moving vnodes as jobs; the workers are fakes.</summary>
public sealed class NumaTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;
    private static readonly HostTopology s_host = HostTopology.Read();
    private static readonly int s_node = s_host.Nodes.First(n => n.TotalBytes > 0).Id;

    [Fact]
    public async Task A_vm_and_the_host_tell_who_is_where()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        FakeWorker worker = await RunningAsync(daemon);
        VnodeNuma unknown = Assert.Single((await daemon.Client.NumaAsync("web1", s_none)).Vnodes);
        Assert.Equal(
            ("0", "", "auto", null, null), (unknown.Vcpus, unknown.HostNodes, unknown.Policy, unknown.Present, unknown.AtHomePercent));
        worker.Numa = new WorkerNuma([new VnodeHomeInfo(0, [s_node, s_node + 1], "strict", 4096, [0, 1],
            [new HomedThreadInfo("disk0-io0", int.MaxValue), new HomedThreadInfo("vcpu1", 2), new HomedThreadInfo("vcpu0", 1)])]);
        worker.Present = Memory((s_node, 600 << 20), (s_node + 1, 399 << 20), (s_node + 2, 1 << 20));
        VnodeNuma vnode = Assert.Single((await daemon.Client.NumaAsync("web1", s_none)).Vnodes);
        Assert.Equal(("0-1", $"{s_node}-{s_node + 1}", "0-1", 99.9), (vnode.Vcpus, vnode.HostNodes, vnode.HostCpus, vnode.AtHomePercent));
        Assert.Equal([600UL << 20, 399UL << 20, 1UL << 20], vnode.Present!.Select(p => p.Bytes));
        Assert.Equal((null, null), (vnode.Threads[0].AllowedCpus, vnode.Threads[0].LastCpu)); // no such thread

        HostNuma host = await daemon.Client.HostNumaAsync(s_none);
        Assert.Equal(s_host.Nodes.Select(n => n.Id), host.Nodes.Select(n => n.Id));
        HostNumaNode node = host.Nodes.Single(n => n.Id == s_node);
        Assert.Equal(new NodeTenant("web1", 0, 600 << 20), Assert.Single(node.Tenants));
        Assert.Equal((s_host.Nodes.Count, true), (node.Distances.Count, node.AvailableBytes >= node.FreeBytes));
        await daemon.Client.DoAsync("web1", "stop", s_none);
        Assert.Empty((await daemon.Client.HostNumaAsync(s_none)).Nodes.Single(n => n.Id == s_node).Tenants);
        Assert.Equal("wrong-state", (await DaemonFixture.RefusedAsync(() => daemon.Client.NumaAsync("web1", s_none))).Code);
    }

    [Fact]
    public async Task A_move_is_a_job_with_progress_an_event_and_what_the_worker_needs_to_know()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        FakeWorker worker = await RunningAsync(daemon);
        worker.Moves.Enqueue(Status(RehomeState.Running, 0.4));
        worker.Moves.Enqueue(Status(RehomeState.Running, 0.7));
        worker.Moves.Enqueue(Status(RehomeState.Done, 1));
        if (!s_host.HasNuma)
        {
            Assert.Equal((422, "rehome-impossible"), await RefusedAsync(daemon, 0, new RehomeRequest("0")));
            return;
        }

        JobInfo job = await daemon.Client.RehomeAsync("web1", 0, new RehomeRequest($"{s_node}", 64 << 20), s_none);
        Assert.Equal(("vm-rehome", "web1"), (job.Kind, job.Target));
        Assert.Equal(JobState.Done, (await EndAsync(daemon, job)).State);
        Assert.Equal((0, s_node, 64UL << 20), (worker.Rehomed!.Vnode, worker.Rehomed.HostNodes.Single(), worker.Rehomed.BytesPerSecond));
        Assert.Equal(s_host.CpusNear([s_node]), worker.Rehomed.HostCpus);
        DaemonEvent told = (await daemon.Client.EventsOfAsync("web1", s_none)).Events.Single(e => e.Kind is "rehome");
        Assert.Equal($"vnode 0 to host node {s_node}: 512 MiB moved in 1.5 s", told.Message);
        Assert.Equal(RehomeState.Done, (await daemon.Client.NumaAsync("web1", s_none)).Rehome!.State);
    }

    [Fact]
    public async Task What_stays_behind_and_what_the_kernel_refuses_fail_the_job_with_the_numbers()
    {
        if (!s_host.HasNuma)
        {
            return;
        }

        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        FakeWorker worker = await RunningAsync(daemon);
        worker.Moves.Enqueue(Status(RehomeState.Done, 1) with { Left = [new NodeBytes(7, 12 << 20)] });
        JobInfo left = await EndAsync(daemon, await daemon.Client.RehomeAsync("web1", 0, new RehomeRequest($"{s_node}"), s_none));
        Assert.Equal((JobState.Failed, "rehome-incomplete"), (left.State, left.Error!.Code));
        Assert.Contains("12288 KiB on node 7", left.Error.Detail, StringComparison.Ordinal);
        worker.Numa = worker.Numa with { Rehome = null };
        worker.Moves.Enqueue(Status(RehomeState.Failed, 0.1) with { Message = "mbind: no" });
        JobInfo failed = await EndAsync(daemon, await daemon.Client.RehomeAsync("web1", 0, new RehomeRequest($"{s_node}"), s_none));
        Assert.Equal((JobState.Failed, "rehome-failed"), (failed.State, failed.Error!.Code));
    }

    [Fact]
    public async Task A_cancelled_job_cancels_the_move()
    {
        if (!s_host.HasNuma)
        {
            return;
        }

        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        FakeWorker worker = await RunningAsync(daemon);
        worker.Moves.Enqueue(Status(RehomeState.Running, 0.1));
        JobInfo job = await daemon.Client.RehomeAsync("web1", 0, new RehomeRequest($"{s_node}"), s_none);
        for (int i = 0; i < 500 && worker.Numa.Rehome is null; i++)
        {
            await Task.Delay(10);
        }

        Assert.Equal((409, "rehome-running"), await RefusedAsync(daemon, 0, new RehomeRequest($"{s_node}")));
        await daemon.Client.CancelJobAsync(job.Id, s_none);
        Assert.Equal(JobState.Cancelled, (await EndAsync(daemon, job)).State);
        Assert.True(worker.RehomeCancelled);
        Assert.Contains(
            "policy and threads are as before",
            (await daemon.Client.EventsOfAsync("web1", s_none)).Events[^1].Message,
            StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_cannot_be_is_refused_before_anything_happens()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        Assert.Equal((409, "wrong-state"), await RefusedAsync(daemon, 0, new RehomeRequest($"{s_node}")));
        await daemon.Client.DoAsync("web1", "start", s_none);
        FakeWorker worker = daemon.Workers.Alive.Values.Single();
        foreach ((int vnode, RehomeRequest wish) in new[]
        {
            (3, new RehomeRequest($"{s_node}")), (0, new RehomeRequest("")), (0, new RehomeRequest("one")), (0, new RehomeRequest("60")),
            (0, new RehomeRequest($"{s_node}", 5)), (0, new RehomeRequest("5000"))
        })
        {
            Assert.Equal((422, "rehome-impossible"), await RefusedAsync(daemon, vnode, wish));
        }

        Assert.Equal(
            404, (await DaemonFixture.RefusedAsync(() => daemon.Client.RehomeAsync("web2", 0, new RehomeRequest("0"), s_none))).Status);
        worker.Present = Memory((s_node + 1, 1L << 50));
        if (s_host.HasNuma)
        {
            Problem full =
                await DaemonFixture.RefusedAsync(() => daemon.Client.RehomeAsync("web1", 0, new RehomeRequest($"{s_node}"), s_none));
            Assert.Contains($"{1L << 30} MiB would have to go to host node {s_node}", full.Detail, StringComparison.Ordinal);
        }

        Assert.Null(worker.Rehomed);
    }

    [Fact]
    public async Task How_a_vm_was_mapped_onto_the_host_is_an_event_and_part_of_its_numa()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        NumaFitInfo fit = new(
            [new VnodeFitInfo(
                0, "moved", "60", [new NodeBytes(s_node, 64 << 20)], $"moved to host node {s_node}: host node 60 does not exist here")],
            100,
            "the spec gives no distances");
        daemon.Workers.Numa = new WorkerNuma([new VnodeHomeInfo(0, [s_node], "strict", 4096, [], [])], Fit: fit);
        await daemon.CreateAsync("plain");
        await daemon.CreateAsync("web1", Vnode);
        await daemon.CreateAsync("web2", Vnode.Replace("fit: exact", "fit: best", StringComparison.Ordinal));
        foreach (string name in (string[])["plain", "web1", "web2"])
        {
            await daemon.Client.DoAsync(name, "start", s_none);
        }

        Assert.DoesNotContain((await daemon.Client.EventsOfAsync("plain", s_none)).Events, e => e.Kind is "numa-fit");
        Assert.DoesNotContain((await daemon.Client.EventsOfAsync("web1", s_none)).Events, e => e.Kind is "numa-fit");
        DaemonEvent told = (await daemon.Client.EventsOfAsync("web2", s_none)).Events.Single(e => e.Kind is "numa-fit");
        Assert.Equal($"vnode 0 moved to host node {s_node}: host node 60 does not exist here; the spec gives no distances", told.Message);
        Assert.Equal("moved", (await daemon.Client.NumaAsync("web2", s_none)).Fit!.Vnodes.Single().Outcome);
    }

    [Fact]
    public async Task A_spec_is_mapped_onto_the_host_without_being_started()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        VnodeFitInfo vnode = Assert.Single((await daemon.Client.FitAsync("boot: {kernel: k}\n" + Vnode, s_none)).Vnodes);
        Assert.Equal(("moved", "60"), (vnode.Outcome, vnode.Wanted));
        Assert.Equal(64UL << 20, vnode.Shares.Single().Bytes);
        Assert.Equal("exact", (await daemon.Client.FitAsync("boot: {kernel: k}", s_none)).Vnodes.Single().Outcome);
        Assert.Equal("exact", (await daemon.Client.FitAsync("boot: {kernel: k}\nnuma: true", s_none)).Vnodes.Single().Outcome);
        Assert.Equal("spec-invalid", (await DaemonFixture.RefusedAsync(() => daemon.Client.FitAsync("cpus: x", s_none))).Code);
        Assert.Empty((await daemon.Client.ListAsync(s_none)).Vms);
        Assert.Equal(
            "host-too-small",
            (await DaemonFixture.RefusedAsync(() => daemon.Client.FitAsync("boot: {kernel: k}\nmemory: 16TiB\nnuma: true", s_none))).Code);
    }

    private const string Vnode = "memory: 64MiB\nnuma: {fit: exact, vnodes: [{cpus: 0, memory: 64MiB, hostNodes: 60}]}";

    private static RehomeStatus Status(RehomeState state, double progress) =>
        new(0, [s_node], state, progress, 512 << 20, [], state == RehomeState.Running ? 0 : 1500);

    private static Dictionary<int, IReadOnlyDictionary<int, ulong>> Memory(params (int Node, long Bytes)[] nodes) =>
        new() { [0] = nodes.ToDictionary(n => n.Node, n => (ulong)n.Bytes) };

    private static async Task<FakeWorker> RunningAsync(DaemonFixture daemon)
    {
        await daemon.CreateAsync("web1");
        await daemon.Client.DoAsync("web1", "start", s_none);
        return daemon.Workers.Alive.Values.Single();
    }

    private static async Task<(int Status, string Code)> RefusedAsync(DaemonFixture daemon, int vnode, RehomeRequest wish)
    {
        Problem problem = await DaemonFixture.RefusedAsync(() => daemon.Client.RehomeAsync("web1", vnode, wish, s_none));
        return (problem.Status, problem.Code);
    }

    private static async Task<JobInfo> EndAsync(DaemonFixture daemon, JobInfo job)
    {
        await foreach (JobInfo now in daemon.Client.WatchJobAsync(job.Id, s_none))
        {
            job = now;
        }

        return job;
    }
}
