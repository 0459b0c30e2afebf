using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Balancer;
using Vmm.Spec;

namespace Vmm.Daemon.Tests.Balancer;

/// <summary>The balancer in a daemon with a fake worker and an agent that says what the test wants.</summary>
public sealed class BalancerServiceTests
{
    private const ulong MiB = 1 << 20;
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Fact]
    public async Task A_guest_in_need_grows_until_somebody_gives_it_a_size()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await using FakeVsock vsock = await RunAsync(daemon);
        vsock.Answer = Report(total: 64, available: 2);
        BalancerService balancer = daemon.Host.Balancer;
        await balancer.RoundAsync(s_none);
        BalancerEntry entry = Assert.Single(balancer.Info.Decisions);
        Assert.Equal((true, 64 * MiB, 72 * MiB), (entry.Applied, entry.FromBytes, entry.ToBytes));
        Assert.Equal(72 * MiB, (await daemon.Client.MemoryAsync("web1", s_none)).Vnodes[0].AskedBytes);
        Assert.Contains((await daemon.Client.EventsOfAsync("web1", s_none)).Events,
            e => e.Kind is "balanced" && e.Message!.Contains("2MiB of 64MiB available", StringComparison.Ordinal));
        Assert.Equal(
            ("agent", false), ((await daemon.Client.BalancerAsync(s_none)).Vnodes.Single() is var v ? (v.Source, v.Pinned) : default));

        await daemon.Client.ChangeMemoryAsync("web1", new MemoryWish(0, 128 * MiB), TimeSpan.FromSeconds(10), s_none);
        vsock.Answer = Report(total: 128, available: 2);
        await balancer.RoundAsync(s_none);
        Assert.Single(balancer.Info.Decisions);
        Assert.True((await daemon.Client.BalancerAsync(s_none)).Vnodes.Single().Pinned);
        await daemon.Client.ChangeMemoryAsync("web1", new MemoryWish(0, Auto: true), TimeSpan.Zero, s_none);
        await balancer.RoundAsync(s_none);
        Assert.Equal(2, balancer.Info.Decisions.Count);
        Assert.Equal(
            (422, "memory-impossible"),
            await DaemonFixture.RefusedAsync(
                () => daemon.Client.ChangeMemoryAsync("web1", new MemoryWish(0, 64 * MiB, Auto: true), TimeSpan.Zero, s_none)) is var p
                ? (p.Status, p.Code)
                : default);
        Assert.Contains("vmm_balancer_bytes_total{direction=\"grow\"}", await daemon.GetAsync("/metrics"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_dry_run_only_says_what_it_would_do_and_a_hung_guest_is_left_alone()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await using FakeVsock vsock = await RunAsync(daemon);
        Assert.True((await daemon.Client.SetBalancerAsync(new BalancerWish(DryRun: true), s_none)).DryRun);
        vsock.Answer = Report(total: 64, available: 2);
        await daemon.Host.Balancer.RoundAsync(s_none);
        Assert.False(Assert.Single(daemon.Host.Balancer.Info.Decisions).Applied);
        Assert.Equal(64 * MiB, (await daemon.Client.MemoryAsync("web1", s_none)).Vnodes[0].AskedBytes);
        vsock.Answer = null; // takes the question and never answers
        await daemon.Host.Balancer.RoundAsync(s_none);
        Assert.Single(daemon.Host.Balancer.Info.Decisions);
        Assert.Equal("unknown", daemon.Host.Balancer.Info.Vnodes.Single().Source);
    }

    [Fact]
    public async Task A_vm_of_fixed_memory_gets_it_back_out_of_its_balloon_until_somebody_sizes_that()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1", "memory: 1GiB\nballoon: {statsInterval: 5}\nbalance: {minMemory: 256MiB}\n");
        await daemon.Client.DoAsync("web1", "start", s_none);
        FakeWorker guest = daemon.Workers.Alive.Values.Single();
        guest.Balloon = new BalloonMemoryInfo(512 * MiB, 512 * MiB, 512 * MiB, 5 * MiB, 10 * MiB, 1024 * MiB);
        BalancerService balancer = daemon.Host.Balancer;
        await balancer.RoundAsync(s_none);
        BalancerEntry entry = Assert.Single(balancer.Info.Decisions);
        Assert.Equal((true, 512 * MiB, 576 * MiB), (entry.Applied, entry.FromBytes, entry.ToBytes));
        Assert.Equal(448 * MiB, guest.Balloon.TargetBytes);
        Assert.Equal(("balloon", "balloon"), ((await daemon.Client.BalancerAsync(s_none)).Vnodes.Single() is var seen
            ? (seen.Means, seen.Source)
            : default));

        await daemon.Client.ChangeMemoryAsync("web1", new MemoryWish(BalloonBytes: 500 * MiB), TimeSpan.Zero, s_none);
        await balancer.RoundAsync(s_none);
        Assert.Equal(500 * MiB, guest.Balloon.TargetBytes);
        Assert.True((await daemon.Client.BalancerAsync(s_none)).Vnodes.Single().Pinned);
        await daemon.Client.ChangeMemoryAsync("web1", new MemoryWish(0, Auto: true), TimeSpan.Zero, s_none);
        await balancer.RoundAsync(s_none);
        Assert.True(guest.Balloon.TargetBytes < 500 * MiB);
        guest.Balloon = guest.Balloon with { AvailableBytes = null }; // a guest that tells nothing is left alone
        ulong target = guest.Balloon.TargetBytes;
        await balancer.RoundAsync(s_none);
        Assert.Equal(target, guest.Balloon.TargetBytes);
        Assert.Equal("unknown", (await daemon.Client.BalancerAsync(s_none)).Vnodes.Single().Source);
    }

    [Fact]
    public async Task A_vm_that_does_not_ask_for_it_is_never_changed()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await using FakeVsock vsock = await RunAsync(daemon, "");
        vsock.Answer = Report(total: 64, available: 1);
        await daemon.Host.Balancer.RoundAsync(s_none);
        Assert.Empty(daemon.Host.Balancer.Info.Decisions);
        Assert.Empty(daemon.Host.Balancer.Info.Vnodes);
    }

    [Fact]
    public void Linux_numbers_nodes_as_it_meets_them_in_srat()
    {
        VmSpec spec = new()
        {
            Cpus = 3,
            Numa = new NumaSpec { Vnodes = [new VnodeSpec(), new VnodeSpec { Cpus = [1, 2] }, new VnodeSpec { Cpus = [0] }] }
        };
        Assert.Equal([2, 1, 0], Enumerable.Range(0, 3).Select(k => GuestPressure.GuestNode(spec, k)));
        Assert.Equal([0, 1], Enumerable.Range(0, 2)
            .Select(k => GuestPressure.GuestNode(new VmSpec { Cpus = 4, Numa = new NumaSpec { Auto = true } }, k)));
    }

    [Fact]
    public async Task Settings_are_read_and_nonsense_refused()
    {
        DaemonOptions options = new();
        Assert.Equal(new BalancerOptions(true, true, TimeSpan.FromSeconds(5)), options.With("balancer", "dry-run", out _)!
            .With("balancerInterval", "5", out _)!.Balancer);
        Assert.Null(options.With("balancer", "maybe", out string problem));
        Assert.Contains("on, off or dry-run", problem, StringComparison.Ordinal);
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(
            _ => new DaemonOptions { Balancer = new BalancerOptions(true, false, TimeSpan.FromMilliseconds(20)) });
        for (int i = 0; i < 500 && (await daemon.Client.BalancerAsync(s_none)).Rounds < 3; i++)
        {
            await Task.Delay(10);
        }

        Assert.True((await daemon.Client.BalancerAsync(s_none)).Rounds >= 3);
    }

    private static string Report(int total, int available) =>
        $$"""{"v":1,"nodes":[{"node":0,"total":{{total}}000000,"free":{{available}}000000,"available":{{available << 20}}}],"some":0.5}"""
        + "\n";

    private static async Task<FakeVsock> RunAsync(DaemonFixture daemon, string balance = "balance: true\n")
    {
        FakeVsock vsock = new(Path.Combine(daemon.Folder, "v.sock"));
        await daemon.CreateAsync("web1", $"memory: 64MiB\nmaxMemory: 1GiB\nvsock: {{path: v.sock}}\n{balance}");
        await daemon.Client.DoAsync("web1", "start", s_none);
        return vsock;
    }
}
