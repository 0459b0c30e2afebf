using Microsoft.Extensions.Logging;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Balancer;
using Vmm.Daemon.Logging;
using Vmm.Interop;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Tests;

/// <summary>
/// Workers that their guests took over, on the real control channel of a real daemon. Whatever they say harms their own VM only: the other
/// one is shown,
/// measured, balanced and heard of as before, and the daemon's memory, log, events and descriptors stay bounded.
/// </summary>
public sealed class HostileWorkerTests
{
    private const string Sound = "sound", Bad = "bad", Memory = "memory: 64MiB\nmaxMemory: 128MiB\nbalance: {}\n";

    private static readonly string s_escape = "\\u001b]0;x\\u0007\\u0000\\u202e\\r\\n";

    [Fact]
    public async Task A_flood_of_events_costs_the_daemon_nothing_and_others_keep_theirs()
    {
        await using Stage stage = await Stage.StartAsync();
        long memory = GC.GetTotalMemory(forceFullCollection: true);
        int sent = 0;
        for (long end = Environment.TickCount64 + 3000; Environment.TickCount64 < end; sent++)
        {
            string device = (sent % 3) switch { 0 => $"disk{sent}", 1 => "net0", _ => "\\u001b[2J" };
            bool taken = (sent % 5) switch
            {
                4 => stage.Hostile.Send(
                    0, ControlKinds.State, sent % 2 == 0 ? """{"state":"Paused"}""" : """{"state":"Running"}""", patience: 500),
                3 => stage.Hostile.Send(0, "no-such-kind", $"\"{new string('x', 100_000)}\"", patience: 500),
                _ => stage.Hostile.Send(
                    0, ControlKinds.DeviceRemoved, $"{{\"device\":\"{device}\",\"outcome\":\"Removed\"}}", patience: 500),
            };
            Assert.True(taken || sent > 100, "the daemon takes what a good worker could send");
        }

        Assert.True(sent > 100);
        await stage.OthersAreWellAsync();
        Assert.InRange(GC.GetTotalMemory(forceFullCollection: true) - memory, long.MinValue, 64 << 20);
        Assert.InRange(stage.LogBytes, 0, 256 << 10);
        List<DaemonEvent> events = await stage.EventsAsync();
        Assert.Contains(events, e => e.Vm is Sound);
        Assert.InRange(events.Count(e => e.Vm is Bad), 1, 300);
        Assert.DoesNotContain(events, e => e.Message?.Any(char.IsControl) == true);
    }

    [Fact]
    public async Task Disk_errors_are_bounded_and_name_only_disks_that_the_vm_has()
    {
        await using Stage stage = await Stage.StartAsync(withDisk: true);
        foreach (string body in (string[])
        [
            """{"disk":"disk9","fault":"IoError"}""", """{"disk":"\u001b[2J","fault":"IoError"}""", """{"disk":"net0","fault":"IoError"}""",
            """{"disk":"disk0","fault":7}""", "7"
        ])
        {
            stage.Hostile.Send(0, ControlKinds.DiskError, body);
        }

        for (int i = 0; i < 500; i++)
        {
            stage.Hostile.Send(0, ControlKinds.DiskError, """{"disk":"disk0","fault":"NoSpace"}""");
        }

        await stage.UntilAsync(async () => (await stage.EventsAsync()).Exists(e => e.Kind is "disk-error"));
        await stage.OthersAreWellAsync();
        List<DaemonEvent> errors = [.. (await stage.EventsAsync()).Where(e => e.Kind is "disk-error")];
        Assert.InRange(errors.Count, 1, 100);
        Assert.All(
            errors,
            e =>
                Assert.Equal(
                    (Bad, $"disk0 ({Path.Combine(stage.Daemon.Folder, "bad.img")}): no space left on the host's file system; the guest "
                        + "gets I/O errors"),
                    (e.Vm, e.Message)));
    }

    [Theory]
    [InlineData(ControlKinds.Memory, "{\"vnodes\":[V,V],\"balloon\":null}")] // the same vnode twice: stopped the balancer for all
    [InlineData(ControlKinds.Memory, "{\"vnodes\":[],\"balloon\":null}")]
    [InlineData(ControlKinds.Numa, "{\"vnodes\":[H,H]}")]
    [InlineData(
        ControlKinds.Numa,
        "{\"vnodes\":[{\"vnode\":-1,\"hostNodes\":[-5],\"policy\":\"auto\",\"pageBytes\":0,\"hostCpus\":[],\"threads\":[]}]}")]
    [InlineData(
        ControlKinds.Memory,
        "{\"vnodes\":[{\"vnode\":0,\"leastBytes\":0,\"mostBytes\":18446744073709551615,\"askedBytes\":18446744073709551615,"
        + "\"presentBytes\":18446744073709551615,\"stuckBytes\":0,\"driven\":true}],\"balloon\":null}")]
    public async Task What_a_worker_says_of_its_memory_does_not_stop_the_balancer(string kind, string body)
    {
        await using Stage stage = await Stage.StartAsync();
        body = body.Replace(
            "V",
            """
            {"vnode":0,"leastBytes":67108864,"mostBytes":134217728,"askedBytes":67108864,"presentBytes":67108864,
            "stuckBytes":0,"driven":true}
            """,
            StringComparison.Ordinal)
            .Replace(
                "H",
                """{"vnode":0,"hostNodes":[0],"policy":"auto","pageBytes":4096,"hostCpus":[],"threads":[]}""",
                StringComparison.Ordinal);
        stage.Hostile.Body = asked => string.Equals(asked, kind, StringComparison.Ordinal) ? body : null;
        long rounds = (await stage.Daemon.Client.BalancerAsync(CancellationToken.None)).Rounds;
        await stage.UntilAsync(async () => (await stage.Daemon.Client.BalancerAsync(CancellationToken.None)) is { } now
            && now.Rounds > rounds + 1 && now.Vnodes.Any(v => v.Vm is Sound) && now.Vnodes.All(v => v.Vm is not Bad));
        await stage.OthersAreWellAsync();
    }

    public static TheoryData<string> Counters => new(
        """{"cpuMilliseconds":-1,"residentBytes":2,"exits":3,"disks":[],"nets":[]}""",
        """{"cpuMilliseconds":1e999,"residentBytes":2,"exits":3,"disks":[],"nets":[]}""",
        """{"cpuMilliseconds":1,"residentBytes":2,"exits":3,"disks":[D,D],"nets":[]}""".Replace(
            "D", Disk("disk0"), StringComparison.Ordinal),
        """{"cpuMilliseconds":1,"residentBytes":2,"exits":3,"disks":[D],"nets":[]}""".Replace(
            "D", Disk("disk0\\u0000"), StringComparison.Ordinal),
        """{"cpuMilliseconds":1,"residentBytes":2,"exits":3,"disks":[D],"nets":[]}""".Replace(
            "D", Disk("disk0", inFlight: -1), StringComparison.Ordinal),
        """{"cpuMilliseconds":1,"residentBytes":2,"exits":3,"disks":[D],"nets":[]}""".Replace(
            "D", Disk("a\\n# TYPE x counter\\nx 1"), StringComparison.Ordinal),
        """{"cpuMilliseconds":1,"residentBytes":2,"exits":3,"disks":[null],"nets":[]}""",
        """{"cpuMilliseconds":1,"residentBytes":2,"exits":3,"disks":[D],"nets":[]}""".Replace(
            "D", string.Join(',', Enumerable.Range(0, 900).Select(i => Disk($"disk{i}"))), StringComparison.Ordinal),
        """{"cpuMilliseconds":1,"residentBytes":2,"exits":3,"disks":[],"nets":[N]}""".Replace(
            "N", Net("net0\\u0000", "x"), StringComparison.Ordinal),
        """[]""", """null""", "17", "\"text\"", "{}");

    [Theory]
    [MemberData(nameof(Counters))]
    public async Task Counters_that_no_worker_has_are_a_bad_answer_and_metrics_tell_of_the_others(string body)
    {
        await using Stage stage = await Stage.StartAsync();
        stage.Hostile.Body = asked => asked is ControlKinds.Stats ? body : null;
        Assert.Equal(
            "bad-answer", (await DaemonFixture.RefusedAsync(() => stage.Daemon.Client.StatsAsync(Bad, CancellationToken.None))).Code);
        await stage.OthersAreWellAsync();
    }

    [Theory]
    [InlineData("\\u0000")]
    [InlineData("lo")]
    [InlineData("../../../proc/self")]
    [InlineData("lo/statistics/..")]
    public async Task A_worker_learns_and_spoils_nothing_by_the_name_of_a_tap(string tap)
    {
        await using Stage stage = await Stage.StartAsync();
        string body = """{"cpuMilliseconds":1,"residentBytes":2,"exits":3,"disks":[],"nets":[N]}""".Replace(
            "N", Net("net0", tap), StringComparison.Ordinal);
        stage.Hostile.Body = asked => asked is ControlKinds.Stats ? body : null;
        WorkerStats stats = await stage.Daemon.Client.StatsAsync(Bad, CancellationToken.None);
        Assert.Equal(7, stats.Nets.Single().SentBytes); // its own words, not the counters of the host's interface
        await stage.OthersAreWellAsync();
    }

    [Theory]
    [InlineData("""{"units":[{"name":"a","phase":"Run ning","text":""}]}""")]
    [InlineData("""{"units":[{"name":"a","phase":"running","text":""},{"name":"a","phase":"running","text":""}]}""")]
    [InlineData("""{"units":[{"name":"","phase":"running","text":""}]}""")]
    [InlineData("""{"units":[{"name":"a","phase":"running","text":"","milliseconds":-1}]}""")]
    [InlineData("""{"units":[],"operation":"\u001b[2J"}""")]
    [InlineData("""{"units":[null]}""")]
    [InlineData("{}")]
    public async Task Units_that_no_machine_has_are_a_bad_answer(string body)
    {
        await using Stage stage = await Stage.StartAsync();
        stage.Hostile.Body = asked => asked is ControlKinds.Units ? body : null;
        Assert.Equal(
            "bad-answer", (await DaemonFixture.RefusedAsync(() => stage.Daemon.Client.UnitsAsync(Bad, CancellationToken.None))).Code);
        await stage.OthersAreWellAsync();
    }

    [Fact]
    public async Task Texts_of_a_worker_are_fit_for_a_terminal()
    {
        await using Stage stage = await Stage.StartAsync();
        stage.Hostile.Answer = frame => frame.Kind is ControlKinds.Pause
            && stage.Hostile.Send(
                frame.Id, ControlKinds.Error, $$"""{"code":"wrong-state","message":"{{s_escape}}{{new string('m', 60_000)}}"}""");
        Problem refused = await DaemonFixture.RefusedAsync(() => stage.Daemon.Client.DoAsync(Bad, "pause", CancellationToken.None));
        Assert.DoesNotContain(refused.Detail!, char.IsControl);
        Assert.InRange(refused.Detail!.Length, 100, 5000);
        stage.Hostile.Answer = frame => frame.Kind is ControlKinds.Pause
            && stage.Hostile.Send(frame.Id, ControlKinds.Error, $$"""{"code":"{{s_escape}}","message":""}""");
        Assert.Equal(
            "bad-answer", (await DaemonFixture.RefusedAsync(() => stage.Daemon.Client.DoAsync(Bad, "pause", CancellationToken.None))).Code);
        stage.Hostile.Body = asked => asked is ControlKinds.Units
            ? $$"""{"units":[{"name":"a","phase":"running","text":"x{{s_escape}}"}]}"""
            : null;
        UnitInfo unit = Assert.Single((await stage.Daemon.Client.UnitsAsync(Bad, CancellationToken.None)).Units);
        Assert.DoesNotContain(unit.Text, char.IsControl);
        stage.Hostile.Body = asked => asked is ControlKinds.Devices
            ? $$"""
                {"devices":[{"name":"disk0","kind":"disk","source":"/x{{s_escape}}","slot":3,"readOnly":false,
                "removing":false,"stored":true}]}
                """
            : null;
        Assert.DoesNotContain(
            (await stage.Daemon.Client.DevicesAsync(Bad, CancellationToken.None)).Devices.Single().Source, char.IsControl);
        stage.Hostile.Send(
            0, ControlKinds.Ended, $$"""{"reason":99,"exitCode":7,"message":"end {{s_escape}}","report":["{{s_escape}}"]}""");
        stage.Hostile.Die();
        await stage.UntilAsync(async () => !(await stage.Daemon.Client.ShowAsync(Bad, CancellationToken.None)).State
            .ToString()
            .StartsWith("Run", StringComparison.Ordinal));
        WorkerExit exit = (await stage.Daemon.Client.ShowAsync(Bad, CancellationToken.None)).LastExit!;
        Assert.StartsWith("end ", exit.Message, StringComparison.Ordinal);
        Assert.True(Enum.IsDefined(exit.Reason));
        Assert.DoesNotContain(exit.Message!.Replace('\n', ' '), char.IsControl);
        await stage.OthersAreWellAsync();
    }

    [Fact]
    public async Task Answers_nobody_asked_for_and_descriptors_are_let_go()
    {
        await using Stage stage = await Stage.StartAsync();
        using EventFd some = new();
        await stage.OthersAreWellAsync();
        int before = Descriptors();
        for (int i = 0; i < 300; i++)
        {
            stage.Hostile.Send(1000 + i, ControlKinds.Ok, "{}", 5000, some.Handle);
            stage.Hostile.Send(0, ControlKinds.Ended + "x", "{}", 5000, some.Handle);
        }

        // Descriptors where none belong, and a console that is none.
        stage.Hostile.Answer = frame => stage.Hostile.Send(frame.Id, ControlKinds.Ok, frame.Kind is ControlKinds.Stats
            ? """{"cpuMilliseconds":1,"residentBytes":2,"exits":3,"disks":[],"nets":[]}""" : null, 5000, some.Handle);
        for (int i = 0; i < 50; i++)
        {
            await stage.Daemon.Client.StatsAsync(Bad, CancellationToken.None);
            await Assert.ThrowsAsync<Vmm.Daemon.Workers.WorkerException>(
                () => stage.Hostile.Worker.OpenConsoleAsync(CancellationToken.None));
        }

        await stage.UntilAsync(() => Task.FromResult(Descriptors() < before + 20));
        await stage.OthersAreWellAsync();
    }

    public static TheoryData<string> Nonsense =>
        ["not a frame", "short", "too long", "negative id", "two descriptors", "deep", "empty kind"];

    [Theory]
    [MemberData(nameof(Nonsense))]
    public async Task Frames_that_are_none_end_nothing_but_their_connection(string what)
    {
        await using Stage stage = await Stage.StartAsync();
        using EventFd some = new();
        byte[] bytes = what switch
        {
            "not a frame" => [1, 2, 3, 4, 5, 6, 7, 8, 9],
            "short" => HostileWorker.Frame("{}")[..7],
            "too long" => HostileWorker.Frame(new string(' ', 190_000)),
            "negative id" => HostileWorker.Frame("""{"id":-1,"kind":"ok"}"""),
            "two descriptors" => HostileWorker.Frame("""{"id":0,"kind":"state","descriptors":["a","a"]}"""),
            "deep" =>
                HostileWorker.Frame("{\"id\":0,\"kind\":\"state\",\"body\":" + new string('[', 70_000) + new string(']', 70_000) + "}"),
            _ => HostileWorker.Frame("""{"id":0,"kind":""}"""),
        };
        stage.Hostile.SendBytes(bytes, 5000, what is "two descriptors" ? [some.Handle, some.Handle] : []);
        await stage.OthersAreWellAsync();
        Assert.Equal(Bad, (await stage.Daemon.Client.ShowAsync(Bad, CancellationToken.None)).Name);
    }

    [Fact]
    public async Task A_removal_that_was_not_asked_for_is_a_bad_answer()
    {
        await using Stage stage = await Stage.StartAsync();
        stage.Hostile.Body = asked => asked is ControlKinds.RemoveDevice ? """{"device":"disk7","outcome":"Removed"}""" : null;
        Vmm.Daemon.Workers.WorkerException error = await Assert.ThrowsAsync<Vmm.Daemon.Workers.WorkerException>(
            () => stage.Hostile.Worker.RemoveDeviceAsync("disk0", TimeSpan.Zero, force: false, CancellationToken.None));
        Assert.Equal("bad-answer", error.Code);
        await stage.OthersAreWellAsync();
    }

    private static string Disk(string name, int inFlight = 0) =>
        $$"""
        {"name":"{{name}}","readRequests":1,"readBytes":1,"writeRequests":1,"writtenBytes":1,"flushes":1,"errors":0,
        "inFlight":{{inFlight}},"held":0}
        """;

    private static string Net(string name, string tap) =>
        $$"""{"name":"{{name}}","receivedPackets":7,"receivedBytes":7,"sentPackets":7,"sentBytes":7,"dropped":0,"kernelTap":"{{tap}}"}""";

    private static int Descriptors() => Directory.GetFileSystemEntries("/proc/self/fd").Length;

    /// <summary>A daemon with a sound VM and one whose worker is hostile.</summary>
    private sealed class Stage : IAsyncDisposable
    {
        private readonly string _log = Path.Combine(Path.GetTempPath(), $"hostile-{Guid.NewGuid():N}.log");

        internal DaemonFixture Daemon { get; private set; } = null!;

        internal HostileWorker Hostile { get; private set; } = null!;

        internal long LogBytes => new FileInfo(_log).Length;

        internal static async Task<Stage> StartAsync(bool withDisk = false)
        {
            Stage stage = new();
            stage.Daemon = await DaemonFixture.StartAsync(_ => new DaemonOptions
            {
                Log = new LogOptions { Level = LogLevel.Information, File = stage._log },
                Balancer = BalancerOptions.Off with { Enabled = true, DryRun = true, Interval = TimeSpan.FromMilliseconds(50) },
            });
            stage.Daemon.Workers.Instead =
                (id, spec) => spec.Name is Bad ? (stage.Hostile = new HostileWorker(stage.Daemon.Folder, id)).Worker : null;
            string disk = Path.Combine(stage.Daemon.Folder, "bad.img");
            await File.WriteAllBytesAsync(disk, new byte[4096]);
            string more = withDisk ? $"disks:\n- path: {disk}\n" : "";
            foreach (string vm in (string[])[Sound, Bad])
            {
                await stage.Daemon.CreateAsync(vm, vm is Bad ? Memory + more : Memory.Replace("128MiB", "1GiB", StringComparison.Ordinal));
                await stage.Daemon.Client.DoAsync(vm, "start", CancellationToken.None);
            }

            return stage;
        }

        /// <summary>The sound VM is shown, counted and told of.</summary>
        internal async Task OthersAreWellAsync()
        {
            Assert.Equal(VmState.Running, (await Daemon.Client.ShowAsync(Sound, CancellationToken.None)).State);
            Assert.Equal(12, (await Daemon.Client.StatsAsync(Sound, CancellationToken.None)).CpuMilliseconds);
            string metrics = await Daemon.GetAsync("/metrics");
            Assert.Contains("vmm_vm_exits_total{vm=\"sound\"} 56", metrics, StringComparison.Ordinal);
            Assert.DoesNotContain(metrics, c => char.IsControl(c) && c != '\n');
            Assert.Contains(await EventsAsync(), e => e.Vm is Sound && e.State == VmState.Running);
        }

        internal async Task<List<DaemonEvent>> EventsAsync()
        {
            List<DaemonEvent> events = [];
            using CancellationTokenSource enough = new(TimeSpan.FromSeconds(20));
            try
            {
                await foreach (DaemonEvent e in Daemon.Client.EventsAsync(0, enough.Token))
                {
                    events.Add(e);
                    enough.CancelAfter(200);
                }
            }
            catch (OperationCanceledException)
            {
                // All that is kept has come.
            }

            return events;
        }

        internal async Task UntilAsync(Func<Task<bool>> condition)
        {
            for (long end = Environment.TickCount64 + 20_000; !await condition();)
            {
                Assert.True(Environment.TickCount64 < end, "it did not come to that");
                await Task.Delay(20);
            }
        }

        public async ValueTask DisposeAsync()
        {
            if (Hostile is not null)
            {
                await Hostile.DisposeAsync();
            }

            await Daemon.DisposeAsync();
            File.Delete(_log);
        }
    }
}
