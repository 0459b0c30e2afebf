using System.Diagnostics;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Pressure;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Tests.Pressure;

/// <summary>The pressure loop in a daemon with fake workers, over files that say how the host stands.</summary>
public sealed class PressureServiceTests : IDisposable
{
    private const ulong MiB = 1 << 20, Mebi = 1024; // the files are in KiB
    private const string Limited = "memory: {size: 1GiB, resident: 512MiB, minResident: 128MiB}\n";
    private static readonly CancellationToken s_none = CancellationToken.None;
    private readonly HostFiles _host = new();

    public PressureServiceTests() => Host(available: 8192);

    public void Dispose() => _host.Dispose();

    [Fact]
    public async Task A_vm_is_squeezed_while_the_host_is_short_and_gets_back_what_was_taken()
    {
        await using DaemonFixture daemon = await StartAsync();
        FakeWorker worker = await RunAsync(daemon, "web1", Limited);
        await daemon.CreateAsync("free", "memory: 1GiB\n");
        await daemon.Client.DoAsync("free", "start", s_none);
        await RoundAsync(daemon);
        Assert.Equal(512 * MiB, worker.LimitInForce);
        Host(available: 200);
        await RoundAsync(daemon);
        Assert.InRange(worker.LimitInForce!.Value, 400 * MiB, 456 * MiB);
        Assert.Contains("the host has 200 MiB available, below 256 MiB", worker.LimitReason, StringComparison.Ordinal);
        VmMemory told = await daemon.Client.MemoryAsync("web1", s_none);
        Assert.Equal((512 * MiB, 128 * MiB), (told.Paging!.ConfiguredBytes!.Value, told.Paging.MinResidentBytes!.Value));
        Assert.Equal((worker.LimitInForce.Value, worker.LimitReason), (told.Paging.LimitBytes, told.Paging.Reason));
        Assert.Contains("resident: 512MiB", await daemon.Client.SpecAsync("web1", s_none), StringComparison.Ordinal);
        PressureInfo info = await daemon.Client.PressureAsync(s_none);
        Assert.Equal((true, 256 * MiB, 200 * MiB), (info.Enabled, info.ReserveBytes, info.Nodes.Single().AvailableBytes));
        Assert.Contains("without a resident limit", info.Vms.Single(vm => vm.Vm is "free").LeftAlone, StringComparison.Ordinal);
        Assert.Null(info.Vms.Single(vm => vm.Vm is "web1").LeftAlone);
        Assert.Equal(("web1", "limit", (string?)null), Assert.Single(info.Decisions) is var e ? (e.Vm, e.Means, e.Problem) : default);
        string metrics = await daemon.GetAsync("/metrics");
        Assert.Contains($"vmm_host_memory_available_bytes{{node=\"0\"}} {200 * MiB}", metrics, StringComparison.Ordinal);
        Assert.Contains(
            $"vmm_pressure_bytes_total{{direction=\"take\"}} {(512 * MiB) - worker.LimitInForce.Value}", metrics, StringComparison.Ordinal);

        Host(available: 8192);
        for (int i = 0; i < 10 && worker.LimitInForce < 512 * MiB; i++)
        {
            await RoundAsync(daemon);
        }

        Assert.Equal((512 * MiB, (string?)null), (worker.LimitInForce.Value, worker.LimitReason));
        IReadOnlyList<string> events = Events(daemon, "web1");
        Assert.InRange(events.Count, 2, 3); // it began, it gave back, it was over
        Assert.Contains("nothing is taken any more", events[^1], StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_limit_that_somebody_gives_wins_and_resets_what_was_taken()
    {
        await using DaemonFixture daemon = await StartAsync();
        FakeWorker worker = await RunAsync(daemon, "web1", Limited);
        Host(available: 100);
        await RoundAsync(daemon);
        Assert.True(worker.LimitInForce < 512 * MiB);
        await daemon.Client.ChangeMemoryAsync("web1", new MemoryWish(Resident: "768MiB"), TimeSpan.Zero, s_none);
        Assert.Equal((768 * MiB, (string?)null), (worker.LimitInForce.Value, worker.LimitReason));
        // What was decided for the limit before is not carried out any more.
        VmResidentLimit limit = daemon.Host.Vms.Get("web1").ResidentLimit;
        ApiException refused = await Assert.ThrowsAsync<ApiException>(() => limit.PressAsync(512 * MiB, 256 * MiB, "late", s_none));
        Assert.Contains("got another resident limit meanwhile", refused.Message, StringComparison.Ordinal);
        Assert.Equal(768 * MiB, worker.LimitInForce.Value);
        await RoundAsync(daemon);
        Assert.InRange(worker.LimitInForce.Value, 512 * MiB, 767 * MiB); // the host is short still: taken of what it has now
    }

    [Fact]
    public async Task A_daemon_that_comes_back_goes_on_from_what_its_workers_keep_to()
    {
        await using DaemonFixture daemon = await StartAsync();
        FakeWorker worker = await RunAsync(daemon, "web1", Limited);
        Host(available: 100);
        await RoundAsync(daemon);
        ulong taken = worker.LimitInForce!.Value;
        Assert.True(taken < 512 * MiB);
        await daemon.RestartAsync();
        Assert.Equal(taken, worker.LimitInForce.Value);
        Assert.Equal((taken, 512 * MiB), (await daemon.Client.MemoryAsync("web1", s_none)).Paging is { } paging
            ? (paging.LimitBytes, paging.ConfiguredBytes!.Value)
            : default);
        await RoundAsync(daemon);
        Assert.True(worker.LimitInForce < taken); // the host is short still
        Host(available: 8192);
        for (int i = 0; i < 10 && worker.LimitInForce < 512 * MiB; i++)
        {
            await RoundAsync(daemon);
        }

        Assert.Equal(512 * MiB, worker.LimitInForce.Value);
    }

    [Fact]
    public async Task A_daemon_that_comes_back_without_the_loop_gives_back_what_was_taken()
    {
        await using DaemonFixture daemon = await StartAsync();
        FakeWorker worker = await RunAsync(daemon, "web1", Limited);
        Host(available: 100);
        await RoundAsync(daemon);
        Assert.True(worker.LimitInForce < 512 * MiB);
        daemon.Host.Reload(daemon.Options with { Pressure = daemon.Options.Pressure with { Enabled = false } }, "");
        await RoundAsync(daemon);
        Assert.Equal(512 * MiB, worker.LimitInForce);
        Assert.False((await daemon.Client.PressureAsync(s_none)).Enabled);
        await RoundAsync(daemon);
        Assert.Equal(512 * MiB, worker.LimitInForce);
        daemon.Host.Reload(daemon.Options, "");
        await RoundAsync(daemon);
        Assert.True(worker.LimitInForce < 512 * MiB);
    }

    [Fact]
    public async Task A_worker_that_does_not_answer_keeps_no_other_from_being_relieved_and_is_not_asked_each_time()
    {
        await using DaemonFixture daemon = await StartAsync();
        FakeWorker hung = await RunAsync(daemon, "hung", Limited), well = await RunAsync(daemon, "well", Limited);
        hung.MemoryGate = new TaskCompletionSource();
        try
        {
            Host(available: 100);
            await RoundAsync(daemon);
            ulong once = well.LimitInForce!.Value;
            Assert.True(once < 512 * MiB);
            Assert.Contains("does not answer",
                (await daemon.Client.PressureAsync(s_none)).Vms.Single(vm => vm.Vm is "hung").LeftAlone, StringComparison.Ordinal);
            Stopwatch clock = Stopwatch.StartNew();
            await RoundAsync(daemon);
            Assert.True(clock.Elapsed < PressureSampler.Patience, $"{clock.Elapsed}"); // it was not waited for again
            Assert.True(well.LimitInForce < once);
        }
        finally
        {
            hung.MemoryGate.SetResult();
        }
    }

    [Fact]
    public async Task A_worker_that_hangs_over_its_change_fails_alone()
    {
        await using DaemonFixture daemon = await StartAsync();
        FakeWorker hung = await RunAsync(daemon, "hung", Limited), well = await RunAsync(daemon, "well", Limited);
        TaskCompletionSource gate = new();
        hung.Wishing = _ => gate.Task;
        try
        {
            Host(available: 100);
            await RoundAsync(daemon);
            Assert.True(well.LimitInForce < 512 * MiB);
            IReadOnlyList<PressureEntry> entries = (await daemon.Client.PressureAsync(s_none)).Decisions;
            Assert.Equal("its worker does not answer", entries.Single(e => e.Vm is "hung").Problem);
            Assert.Null(entries.Single(e => e.Vm is "well").Problem);
        }
        finally
        {
            gate.SetResult();
        }
    }

    [Theory]
    [InlineData(1UL << 60, 1UL << 60, 1UL << 60)]
    [InlineData(0UL, 0UL, 0UL)]
    [InlineData(1UL << 60, 0UL, 1UL)]
    public async Task A_worker_that_lies_about_its_pager_errs_about_itself_only(ulong limit, ulong resident, ulong least)
    {
        await using DaemonFixture daemon = await StartAsync();
        FakeWorker liar = await RunAsync(daemon, "liar", Limited), well = await RunAsync(daemon, "well", Limited);
        liar.Lies = said => said with { LimitBytes = limit, ResidentBytes = resident, LeastBytes = least, PagesIn = ulong.MaxValue };
        Host(available: 200);
        for (int i = 0; i < 20; i++)
        {
            await RoundAsync(daemon);
            Assert.InRange(liar.LimitInForce!.Value, 128 * MiB, 512 * MiB);
        }

        Assert.InRange(well.LimitInForce!.Value, 128 * MiB, 500 * MiB); // relieved, whatever the other says
        Assert.InRange(Events(daemon, "liar").Count, 0, 3);
        liar.Lies = null;
        Host(available: 8192);
        for (int i = 0; i < 10; i++)
        {
            await RoundAsync(daemon);
        }

        Assert.Equal((512 * MiB, 512 * MiB), (liar.LimitInForce!.Value, well.LimitInForce.Value));
    }

    [Fact]
    public async Task A_vm_with_a_command_under_way_is_left_alone_for_now()
    {
        await using DaemonFixture daemon = await StartAsync();
        FakeWorker worker = await RunAsync(daemon, "web1", Limited);
        TaskCompletionSource gate = new(), entered = new();
        worker.Wishing = _ =>
        {
            entered.TrySetResult();
            return gate.Task;
        };
        Task<VmMemory> change = daemon.Client.ChangeMemoryAsync("web1", new MemoryWish(Resident: "600MiB"), TimeSpan.Zero, s_none);
        await entered.Task;
        Host(available: 100);
        await RoundAsync(daemon);
        Assert.Contains("another command is being carried out",
            Assert.Single((await daemon.Client.PressureAsync(s_none)).Decisions).Problem, StringComparison.Ordinal);
        gate.SetResult();
        await change;
        Assert.Equal(600 * MiB, worker.LimitInForce);
    }

    [Fact]
    public async Task Files_that_cannot_be_read_are_told_of_once_and_nothing_is_taken()
    {
        await using DaemonFixture daemon = await StartAsync();
        FakeWorker worker = await RunAsync(daemon, "web1", Limited);
        _host.Write("sys/devices/system/node/node0/meminfo", "nothing of that kind");
        for (int i = 0; i < 3; i++)
        {
            await RoundAsync(daemon);
        }

        Assert.Contains("nothing is taken from VMs", Assert.Single(Events(daemon, "", "host-memory")), StringComparison.Ordinal);
        Assert.Contains("meminfo", (await daemon.Client.PressureAsync(s_none)).Problem, StringComparison.Ordinal);
        Assert.Equal(512 * MiB, worker.LimitInForce);
        Host(available: 8192);
        await RoundAsync(daemon);
        Assert.Equal(2, Events(daemon, "", "host-memory").Count);
    }

    [Fact]
    public async Task What_stands_for_long_makes_few_events_and_many_decisions_are_kept_in_bounds()
    {
        await using DaemonFixture daemon = await StartAsync(leastStep: MiB, step: 0);
        await RunAsync(daemon, "web1", Limited);
        Host(available: 10);
        for (int i = 0; i < 400; i++)
        {
            await RoundAsync(daemon);
        }

        PressureInfo info = await daemon.Client.PressureAsync(s_none);
        Assert.InRange(info.Decisions.Count, 90, 200);
        Assert.InRange(Events(daemon, "web1").Count, 1, 2);
        Assert.Equal(128 * MiB, info.Vms.Single().LimitBytes);
    }

    [Fact]
    public async Task A_balloon_takes_what_the_guest_has_available_until_somebody_sizes_it()
    {
        await using DaemonFixture daemon = await StartAsync();
        FakeWorker worker = await RunAsync(
            daemon, "web1", "memory: {size: 1GiB, resident: 512MiB, minResident: 512MiB}\nballoon: {statsInterval: 5}\n");
        worker.Balloon = new BalloonMemoryInfo(0, 0, 0, 700 * MiB, 800 * MiB, 1024 * MiB, SaidMsAgo: 10);
        Host(available: 100);
        await RoundAsync(daemon);
        Assert.Equal((128 * MiB, 512 * MiB), (worker.Balloon.TargetBytes, worker.LimitInForce!.Value));
        Assert.Contains("800 MiB of its 1024 MiB are available", worker.Balloon.Reason, StringComparison.Ordinal);
        await daemon.Client.ChangeMemoryAsync("web1", new MemoryWish(BalloonBytes: 64 * MiB), TimeSpan.Zero, s_none);
        Assert.Equal((64 * MiB, (string?)null), (worker.Balloon.TargetBytes, worker.Balloon.Reason));
        await RoundAsync(daemon);
        Host(available: 8192);
        await RoundAsync(daemon);
        Assert.Equal(64 * MiB, worker.Balloon.TargetBytes);
        // Decided before that, carried out after it: not any more.
        ApiException late = await Assert.ThrowsAsync<ApiException>(
            () => daemon.Host.Vms.Get("web1").Memory.PressBalloonAsync(128 * MiB, 192 * MiB, "late", s_none));
        Assert.Contains("somebody gave a size", late.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_balloon_of_the_balancer_is_never_touched()
    {
        await using DaemonFixture daemon = await StartAsync();
        FakeWorker worker = await RunAsync(daemon, "web1",
            "memory: {size: 1GiB, resident: 512MiB, minResident: 512MiB}\nballoon: {statsInterval: 5}\nbalance: {minMemory: 256MiB}\n");
        worker.Balloon = new BalloonMemoryInfo(0, 0, 0, 700 * MiB, 800 * MiB, 1024 * MiB, SaidMsAgo: 10);
        Host(available: 100);
        await RoundAsync(daemon);
        Assert.Equal(0UL, worker.Balloon.TargetBytes);
    }

    [Fact]
    public async Task The_loop_runs_by_itself_and_a_round_that_waits_does_not_hold_up_the_end()
    {
        DaemonFixture daemon = await StartAsync(interval: TimeSpan.FromMilliseconds(20));
        FakeWorker worker = await RunAsync(daemon, "web1", Limited);
        Host(available: 100);
        await DaemonFixture.UntilAsync(() => worker.LimitInForce < 512 * MiB);
        TaskCompletionSource gate = new();
        worker.MemoryGate = gate;
        long rounds = daemon.Host.Pressure.Info.Rounds;
        await Task.Delay(100);
        Assert.InRange(daemon.Host.Pressure.Info.Rounds, rounds, rounds + 1); // it waits
        Task ended = daemon.DisposeAsync().AsTask();
        await ended.WaitAsync(PressureSampler.Patience * 10);
        gate.SetResult();
    }

    [Fact]
    public void Settings_are_read_and_nonsense_refused()
    {
        Assert.False(new DaemonOptions().PressureEnabled);
        DaemonOptions set = Yaml("memory: {overcommit: 1.5}")!;
        Assert.True(set.PressureEnabled);
        Assert.False(Yaml("memory: {overcommit: 1.5, pressure: off}")!.PressureEnabled);
        set = Yaml("memory: {pressure: on, reserve: 2GiB}")!;
        Assert.Equal((true, 2048 * MiB), (set.PressureEnabled, set.Pressure.Reserve));
        Assert.Null(Yaml("memory: {pressure: perhaps}", "pressure: expected on or off"));
        Assert.Null(Yaml("memory: {reserve: some}", "reserve: expected a size such as 2GiB"));
        Assert.Null(Yaml("memory: {reserve: 1KiB}", "reserve: expected a size such as 2GiB"));
        Assert.Null(Yaml("memory: {presure: on}", "known here: overcommit, pressure, reserve"));
        Assert.Null(Yaml("memory: {pressure: [on]}", "pressure: expected on or off"));
        Assert.Equal(2048 * MiB, DaemonOptions.Parse(["--memory-reserve", "2GiB", "--memory-pressure", "on"], out _)?.Pressure.Reserve);

        static DaemonOptions? Yaml(string text, string expected = "")
        {
            DaemonOptions? read = DaemonConfig.Apply(new DaemonOptions(), "vmmd.yaml", text, out string problem);
            Assert.Contains(expected, problem, StringComparison.Ordinal);
            return read;
        }
    }

    /// <summary>A host of 16 GiB.</summary>
    private void Host(ulong available) => _host.Node(0, total: 16384 * Mebi, free: available * Mebi);

    private Task<DaemonFixture> StartAsync(TimeSpan? interval = null, ulong leastStep = 64 * MiB, double step = 0.25) =>
        DaemonFixture.StartAsync(_ => new DaemonOptions
        {
            HostReader = _host.Reader,
            Pressure = new PressureOptions(Enabled: true, Reserve: 256 * MiB)
            {
                Interval = interval ?? TimeSpan.FromHours(1),
                Rules = new PressureRules
                {
                    TakeRest = TimeSpan.Zero,
                    GiveRest = TimeSpan.Zero,
                    Calm = TimeSpan.Zero,
                    Settle = TimeSpan.Zero,
                    Stuck = TimeSpan.Zero,
                    LeastStep = leastStep,
                    Step = step,
                },
            },
        });

    private static async Task<FakeWorker> RunAsync(DaemonFixture daemon, string name, string spec)
    {
        await daemon.CreateAsync(name, spec);
        await daemon.Client.DoAsync(name, "start", s_none);
        return daemon.Workers.Alive[daemon.Host.Vms.Get(name).Record.Id];
    }

    private static Task RoundAsync(DaemonFixture daemon) => daemon.Host.Pressure.RoundAsync(s_none);

    private static IReadOnlyList<string> Events(DaemonFixture daemon, string vm, string kind = "memory-pressure") =>
        [.. daemon.Host.Vms.Events.Of(vm).Where(e => e.Kind == kind).Select(e => e.Message!)];
}
