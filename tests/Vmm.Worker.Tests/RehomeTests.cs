using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Testing;
using static Vmm.Worker.Tests.WorkerFixture;

namespace Vmm.Worker.Tests;

/// <summary>Vnodes moved by confined workers, with a micro-guest that checks its memory meanwhile.</summary>
[Trait("Tier", "kvm")]
public sealed class RehomeTests
{
    private static readonly HostTopology s_host = HostTopology.Read();
    private static readonly HostNode s_node = s_host.Nodes.First(n => n.TotalBytes > 0 && n.Cpus.Count > 0);

    [KvmFact]
    public async Task A_confined_worker_moves_a_vnode_its_threads_follow_and_a_new_daemon_finds_the_new_home()
    {
        if (!s_host.HasNuma)
        {
            return;
        }

        await using WorkerFixture fixture = new(firstUser: Environment.IsPrivilegedProcess ? 64900u : null);
        IWorker worker = await fixture.LaunchAsync(Vnode(VnodePolicy.Auto, []));
        await using Stream console = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        await ReadUntilAsync(console, "READY");
        VnodeHomeInfo before = Assert.Single((await worker.NumaAsync(Soon)).Vnodes);
        Assert.Equal(("auto", 0, 0), (before.Policy, before.HostNodes.Count, before.HostCpus.Count));
        Assert.Equal("vcpu0", Assert.Single(before.Threads).Name);

        int cpu = s_node.Cpus[^1];
        await worker.RehomeAsync(new RehomeBody(0, [s_node.Id], [cpu], 1UL << 30), Soon);
        RehomeStatus done = await OverAsync(worker);
        Assert.Equal((RehomeState.Done, 1.0, 0, null), (done.State, done.Progress, done.Left.Count, done.Message));
        VnodeHomeInfo after = Assert.Single((await worker.NumaAsync(Soon)).Vnodes);
        Assert.Equal(("preferred", s_node.Id, cpu), (after.Policy, after.HostNodes.Single(), after.HostCpus.Single()));
        Assert.Contains(
            $"Cpus_allowed_list:\t{cpu}\n",
            await File.ReadAllTextAsync($"/proc/{worker.ProcessId}/task/{after.Threads[0].Id}/status"),
            StringComparison.Ordinal);
        Assert.Contains(worker.Confinement!.Applied, a => a is "seccomp");
        if (worker.PresentMemory() is { } present) // needs CAP_SYS_PTRACE
        {
            Assert.True(present[0][s_node.Id] > 16 << 20, string.Join(' ', present[0]));
        }
        else
        {
            Assert.False(Environment.IsPrivilegedProcess);
        }

        IWorker adopted = Assert.Single(await fixture.RestartDaemonAsync());
        WorkerNuma known = await adopted.NumaAsync(Soon);
        Assert.Equal((s_node.Id, RehomeState.Done), (known.Vnodes[0].HostNodes.Single(), known.Rehome!.State));
        await using Stream again = await adopted.OpenConsoleAsync(Soon);
        Assert.DoesNotContain("CORRUPT", await ReadUntilAsync(again, "TICK"), StringComparison.Ordinal);
    }

    [KvmFact]
    public async Task A_move_that_cannot_be_leaves_the_home_and_says_why_and_one_that_goes_on_can_be_cancelled()
    {
        if (!s_host.HasNuma)
        {
            return;
        }

        await using WorkerFixture fixture = new();
        IWorker worker = await fixture.LaunchAsync(Vnode(VnodePolicy.Strict, [s_node.Id]));
        await worker.StartAsync(Soon);
        foreach (RehomeBody wrong in new[]
        {
            new RehomeBody(1, [s_node.Id], []), new RehomeBody(-1, [0], []), new RehomeBody(0, [], []), new RehomeBody(0, [-1], []),
            new RehomeBody(0, [1 << 30], []), new RehomeBody(0, [s_node.Id], [], 0)
        })
        {
            Assert.Equal("rehome-impossible", (await Assert.ThrowsAsync<WorkerException>(() => worker.RehomeAsync(wrong, Soon))).Code);
        }

        await worker.CancelRehomeAsync(Soon); // nothing goes on: nothing happens
        await worker.RehomeAsync(new RehomeBody(0, [60], []), Soon);
        RehomeStatus failed = await OverAsync(worker);
        Assert.Equal(RehomeState.Failed, failed.State);
        Assert.Contains("mbind", failed.Message, StringComparison.Ordinal);
        await worker.RehomeAsync(new RehomeBody(0, [s_node.Id], [4000]), Soon);
        Assert.Contains("sched_setaffinity", (await OverAsync(worker)).Message, StringComparison.Ordinal);
        VnodeHomeInfo home = Assert.Single((await worker.NumaAsync(Soon)).Vnodes);
        Assert.Equal(("strict", s_node.Id), (home.Policy, home.HostNodes.Single()));
        Assert.Equal(VmState.Running, worker.State);
    }

    private static VmSpec Vnode(VnodePolicy policy, IReadOnlyList<int> hostNodes)
    {
        VmSpec spec = SpecOf("dirty", "mib=16 base=33554432 seconds=0 tsc_khz=2500000");
        return spec with
        {
            Numa = new NumaSpec { Vnodes = [new VnodeSpec { Cpus = [0], Memory = spec.Memory, HostNodes = hostNodes, Policy = policy }] }
        };
    }

    private static async Task<RehomeStatus> OverAsync(IWorker worker)
    {
        CancellationToken limit = Soon;
        while (true)
        {
            if ((await worker.NumaAsync(limit)).Rehome is { State: not RehomeState.Running } over)
            {
                return over;
            }

            await Task.Delay(10, limit);
        }
    }
}
