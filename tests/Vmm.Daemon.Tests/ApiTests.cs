using System.Net;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Net.WebSockets;
using System.Text;
using System.Text.Json;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Spec;

namespace Vmm.Daemon.Tests;

public sealed class ApiTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Fact]
    public async Task What_the_vcpus_of_a_crashed_VM_looked_like_is_in_its_events_and_not_in_its_record()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        await daemon.Client.DoAsync("web1", "start", s_none);
        daemon.Workers.Alive.Values.Single()
            .End(new WorkerExit(ExitReason.TripleFault, 1, "vCPU 0", ["vCPU 0, which crashed:", "  code: ud2"]));
        Assert.Equal(VmState.Failed, await daemon.StateSoonAsync("web1", VmState.Failed));
        VmInfo vm = await daemon.Client.ShowAsync("web1", s_none);
        Assert.Equal((VmState.Failed, ExitReason.TripleFault), (vm.State, vm.LastExit!.Reason));
        Assert.Null(vm.LastExit.Report);
        DaemonEvent ended = (await daemon.Client.EventsOfAsync("web1", s_none)).Events.Single(e => e.Kind is "ended");
        Assert.Equal(["vCPU 0, which crashed:", "  code: ud2"], ended.Exit!.Report!);
    }

    [Fact]
    public void What_a_worker_says_of_its_end_is_bounded()
    {
        WorkerExit exit = WorkerExits.Bounded(new WorkerExit(
            ExitReason.Failed, 1, new string('m', 9000), [.. Enumerable.Repeat("a\u001b[2J\n" + new string('x', 9000), 500), null!]));
        Assert.Equal(WorkerExits.LongestMessage, exit.Message!.Length);
        Assert.Equal(WorkerExits.MostLines, exit.Report!.Count);
        Assert.All(exit.Report,
            line => Assert.True(line.Length == WorkerExits.LongestLine && line.StartsWith("a [2J x", StringComparison.Ordinal), line));
        Assert.Null(WorkerExits.Bounded(new WorkerExit(ExitReason.PowerOff, 0, null)).Report);
    }

    [Fact]
    public async Task A_vm_lives_through_all_its_states()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        VmInfo made = await daemon.CreateAsync("web1", "cpus: 2\nmemory: 64MiB\n");
        Assert.Equal(
            (VmState.Defined, 1L, 2, 64UL << 20, null), (made.State, made.Revision, made.Cpus, made.MemoryBytes, made.WorkerProcessId));
        VmInfo running = await daemon.Client.DoAsync("web1", "start", s_none);
        Assert.Equal(VmState.Running, running.State);
        Assert.NotNull(running.WorkerProcessId);
        Assert.Equal(VmState.Paused, (await daemon.Client.DoAsync("web1", "pause", s_none)).State);
        Assert.Equal(VmState.Running, (await daemon.Client.DoAsync("web1", "resume", s_none)).State);
        Assert.Equal(VmState.Running, (await daemon.Client.DoAsync("web1", "wake", s_none)).State);
        Assert.Equal(1, daemon.Workers.Alive.Values.Single().Wakes);
        await daemon.Client.DoAsync("web1", "power-button", s_none);
        Assert.Equal(1, daemon.Workers.Alive.Values.Single().PowerButtonPresses);
        Assert.Equal(56, (await daemon.Client.StatsAsync("web1", s_none)).Exits);
        VmInfo stopped = await daemon.Client.DoAsync("web1", "stop", s_none);
        Assert.Equal((VmState.Stopped, ExitReason.Stopped), (stopped.State, stopped.LastExit!.Reason));
        Assert.Equal(VmState.Running, (await daemon.Client.DoAsync("web1", "start", s_none)).State);
        daemon.Workers.Alive.Values.Single().End(new WorkerExit(ExitReason.PowerOff, 0, null));
        Assert.Equal(VmState.Stopped, await daemon.StateSoonAsync("web1", VmState.Stopped));
        await daemon.Client.DeleteAsync("web1", s_none);
        Assert.Empty((await daemon.Client.ListAsync(s_none)).Vms);
    }

    [Fact]
    public async Task Commands_that_do_not_fit_the_state_are_refused_with_the_state()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        foreach (string verb in new[] { "stop", "pause", "resume", "power-button", "wake" })
        {
            Problem problem = await DaemonFixture.RefusedAsync(() => daemon.Client.DoAsync("web1", verb, s_none));
            Assert.Equal((409, "wrong-state"), (problem.Status, problem.Code));
            Assert.Contains("Defined", problem.Detail, StringComparison.Ordinal);
        }

        Assert.Equal("wrong-state", (await DaemonFixture.RefusedAsync(() => daemon.Client.StatsAsync("web1", s_none))).Code);
        await daemon.Client.DoAsync("web1", "start", s_none);
        Assert.Equal("wrong-state", (await DaemonFixture.RefusedAsync(() => daemon.Client.DoAsync("web1", "start", s_none))).Code);
        Assert.Equal("wrong-state", (await DaemonFixture.RefusedAsync(() => daemon.Client.DoAsync("web1", "resume", s_none))).Code);
        Assert.Equal("wrong-state", (await DaemonFixture.RefusedAsync(() => daemon.Client.DeleteAsync("web1", s_none))).Code);
        Assert.Equal((404, "vm-not-found"), await CodeOf(() => daemon.Client.ShowAsync("nobody", s_none)));
        Assert.Equal((404, "no-such-path"), await CodeOf(() => daemon.Client.DoAsync("web1", "explode", s_none)));
    }

    [Fact]
    public async Task Memory_is_changed_until_the_guest_got_there_and_what_it_keeps_is_told()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        Assert.Equal("wrong-state", (await DaemonFixture.RefusedAsync(() => daemon.Client.MemoryAsync("web1", s_none))).Code);
        await daemon.Client.DoAsync("web1", "start", s_none);
        VmMemory grown = await daemon.Client.ChangeMemoryAsync("web1", new MemoryWish(0, 512 << 20), TimeSpan.FromSeconds(30), s_none);
        Assert.True(grown.Settled);
        Assert.Equal(512UL << 20, grown.Vnodes.Single().PresentBytes);
        VmMemory shrunk = await daemon.Client.ChangeMemoryAsync("web1", new MemoryWish(0, 64 << 20), TimeSpan.FromSeconds(1), s_none);
        Assert.False(shrunk.Settled);
        Assert.Equal(
            (64UL << 20, 96UL << 20, 32UL << 20),
            (shrunk.Vnodes[0].AskedBytes, shrunk.Vnodes[0].PresentBytes, shrunk.Vnodes[0].StuckBytes));
        Assert.Equal(
            (422, "memory-impossible"),
            await CodeOf(() => daemon.Client.ChangeMemoryAsync("web1", new MemoryWish(0, 2UL << 30), TimeSpan.FromSeconds(1), s_none)));
        Assert.Equal(
            (400, "bad-request"),
            await CodeOf(() => daemon.Client.ChangeMemoryAsync("web1", new MemoryWish(), TimeSpan.FromSeconds(601), s_none)));
    }

    [Fact]
    public async Task Limits_of_a_device_reach_the_worker_and_its_refusal_the_user()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        Assert.Equal(
            "wrong-state",
            (await DaemonFixture.RefusedAsync(() => daemon.Client.LimitAsync("web1", "disk0", new DeviceLimits(1), s_none))).Code);
        await daemon.Client.DoAsync("web1", "start", s_none);
        await daemon.Client.LimitAsync("web1", "disk0", new DeviceLimits(100 << 20, 5000, BurstOperations: 9), s_none);
        Assert.Equal((422, "limits-impossible"), await CodeOf(() => daemon.Client.LimitAsync("web1", "net7", new DeviceLimits(1), s_none)));
    }

    [Fact]
    public async Task Creating_twice_is_creating_once_and_another_spec_is_a_conflict()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        VmInfo[] made = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => daemon.CreateAsync("web1")));
        Assert.Single(made.Select(m => m.Id).Distinct());
        Assert.Equal((409, "name-taken"), await CodeOf(() => daemon.CreateAsync("web1", "cpus: 2\n")));
    }

    [Fact]
    public async Task All_problems_of_a_spec_come_at_once_with_their_lines()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        Problem problem = await DaemonFixture.RefusedAsync(
            () => daemon.Client.CreateAsync("name: a b\ncpus: 0\nboot:\n  kernel: kernel\n  nonsense: 1\n", daemon.Folder, s_none));
        Assert.Equal((422, "spec-invalid"), (problem.Status, problem.Code));
        Assert.Equal([("name", 1L), ("cpus", 2L), ("boot.nonsense", 5L)], problem.Errors!.Select(e => (e.Field, e.Line)));
        Problem missing =
            await DaemonFixture.RefusedAsync(() => daemon.Client.CreateAsync("name: a\nboot: {kernel: nothere}\n", daemon.Folder, s_none));
        Assert.Contains("does not exist", missing.Detail, StringComparison.Ordinal);
        Problem relative =
            await DaemonFixture.RefusedAsync(() => daemon.Client.CreateAsync("name: a\nboot: {kernel: kernel}\n", "", s_none));
        Assert.Contains(relative.Errors!, e => e.Message.Contains("relative", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_changed_spec_needs_the_revision_that_was_read()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        VmInfo made = await daemon.CreateAsync("web1");
        VmInfo changed = await daemon.Client.ReplaceAsync("web1", daemon.Yaml("web1", "cpus: 3\n"), daemon.Folder, made.Revision, s_none);
        Assert.Equal((2L, 3), (changed.Revision, changed.Cpus));
        Assert.Equal(
            (412, "revision-changed"),
            await CodeOf(() => daemon.Client.ReplaceAsync("web1", daemon.Yaml("web1"), daemon.Folder, made.Revision, s_none)));
        Assert.Equal(
            (422, "name-differs"),
            await CodeOf(() => daemon.Client.ReplaceAsync("web1", daemon.Yaml("web2"), daemon.Folder, null, s_none)));
        Assert.Contains("cpus: 3", await daemon.Client.SpecAsync("web1", s_none), StringComparison.Ordinal);
        await daemon.Client.DoAsync("web1", "start", s_none);
        Assert.Equal(
            (409, "wrong-state"), await CodeOf(() => daemon.Client.ReplaceAsync("web1", daemon.Yaml("web1"), daemon.Folder, null, s_none)));
    }

    [Fact]
    public async Task A_worker_that_cannot_be_made_leaves_the_reason_and_nothing_else()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        daemon.Workers.RefuseLaunch = new WorkerException("kvm-unavailable", "/dev/kvm does not exist");
        Problem problem = await DaemonFixture.RefusedAsync(() => daemon.Client.DoAsync("web1", "start", s_none));
        Assert.Equal((502, "kvm-unavailable"), (problem.Status, problem.Code));
        VmInfo failed = await daemon.Client.ShowAsync("web1", s_none);
        Assert.Equal((VmState.Failed, "/dev/kvm does not exist"), (failed.State, failed.LastExit!.Message));
        daemon.Workers.RefuseLaunch = null;
        Assert.Equal(VmState.Running, (await daemon.Client.DoAsync("web1", "start", s_none)).State);
    }

    [Fact]
    public async Task A_new_daemon_takes_over_what_runs_and_notes_what_is_gone()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        foreach (string name in new[] { "kept", "lost", "off" })
        {
            await daemon.CreateAsync(name);
        }

        VmInfo kept = await daemon.Client.DoAsync("kept", "start", s_none);
        VmInfo lost = await daemon.Client.DoAsync("lost", "start", s_none);
        await daemon.StopDaemonAsync();
        daemon.Workers.Alive.TryRemove(lost.Id, out _);
        await daemon.Workers.LaunchAsync("a VM that nobody knows", new VmSpec(), null, s_none);
        await daemon.StartDaemonAsync();
        Assert.Equal(
            [("kept", VmState.Running), ("lost", VmState.Failed), ("off", VmState.Defined)],
            (await daemon.Client.ListAsync(s_none)).Vms.Select(v => (v.Name, v.State)));
        Assert.Equal(kept.WorkerProcessId, (await daemon.Client.ShowAsync("kept", s_none)).WorkerProcessId);
        Assert.Equal(ExitReason.WorkerDied, (await daemon.Client.ShowAsync("lost", s_none)).LastExit!.Reason);
        Assert.Equal(kept.Id, daemon.Workers.Alive.Values.Single().VmId);
        Assert.Equal(VmState.Stopped, (await daemon.Client.DoAsync("kept", "stop", s_none)).State);
    }

    [Fact]
    public async Task A_second_daemon_on_the_same_folders_is_refused_before_it_touches_a_worker()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        await daemon.Client.DoAsync("web1", "start", s_none);
        foreach (DaemonOptions other in new[]
        {
            daemon.Options,
            daemon.Options with { StateFolder = Path.Combine(daemon.Folder, "other-state") },
            daemon.Options with { RunFolder = Path.Combine(daemon.Folder, "other-run") },
        })
        {
            IOException refused = await Assert.ThrowsAsync<IOException>(() => DaemonHost.StartAsync(other, daemon.Workers, s_none));
            Assert.Contains("another vmmd", refused.Message, StringComparison.Ordinal);
        }

        Assert.Equal(0, daemon.Workers.Adoptions - 1); // the first daemon's own
        Assert.Equal(VmState.Running, (await daemon.Client.ShowAsync("web1", s_none)).State);
    }

    [Fact]
    public async Task A_stored_spec_that_no_longer_reads_spoils_its_own_vm_only()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("good");
        await daemon.StopDaemonAsync();
        using (VmInventory inventory = VmInventory.Open(Path.Combine(daemon.Options.StateFolder, "inventory.db")))
        {
            inventory.Vms.Add(new VmRecord(Guid.NewGuid().ToString(), "old", "name: old\nfieldOfAnotherVersion: 1\n", daemon.Folder, 1,
                WantedOn: false, LastExit: null));
        }

        await daemon.StartDaemonAsync();
        Assert.Equal(VmState.Running, (await daemon.Client.DoAsync("good", "start", s_none)).State);
        Problem problem = await DaemonFixture.RefusedAsync(() => daemon.Client.DoAsync("old", "start", s_none));
        Assert.Equal("spec-invalid", problem.Code);
        Assert.Contains("fieldOfAnotherVersion", problem.Detail, StringComparison.Ordinal);
        await daemon.Client.ReplaceAsync("old", daemon.Yaml("old"), "", null, s_none);
        Assert.Equal(VmState.Running, (await daemon.Client.DoAsync("old", "start", s_none)).State);
    }

    [Fact]
    public async Task Twenty_restarts_among_creates_and_starts_lose_nothing()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        Random random = new(7);
        Dictionary<string, bool> model = [];
        for (int round = 0; round < 20; round++)
        {
            for (int step = 0; step < 5; step++)
            {
                string name = "vm" + random.Next(6);
                if (!model.TryGetValue(name, out bool on))
                {
                    await daemon.CreateAsync(name);
                    model[name] = false;
                }
                else
                {
                    await daemon.Client.DoAsync(name, on ? "stop" : "start", s_none);
                    model[name] = !on;
                }
            }

            await daemon.RestartAsync();
            IReadOnlyList<VmInfo> vms = (await daemon.Client.ListAsync(s_none)).Vms;
            Assert.Equal(
                model.OrderBy(m => m.Key, StringComparer.Ordinal).Select(m => (m.Key, m.Value)),
                vms.Select(v => (v.Name, v.State == VmState.Running)));
            Assert.Equal(model.Count(m => m.Value), daemon.Workers.Alive.Count);
        }
    }

    [Fact]
    public async Task The_console_carries_bytes_both_ways()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        Assert.Equal("console-refused", (await DaemonFixture.RefusedAsync(() => daemon.Client.ConsoleAsync("web1", s_none))).Code);
        await daemon.Client.DoAsync("web1", "start", s_none);
        using WebSocket console = await daemon.Client.ConsoleAsync("web1", s_none);
        await console.SendAsync("hello"u8.ToArray(), WebSocketMessageType.Binary, true, s_none);
        byte[] answer = new byte[64];
        int count = 0;
        while (count < 5)
        {
            count += (await console.ReceiveAsync(answer.AsMemory(count), s_none)).Count;
        }

        Assert.Equal("HELLO", Encoding.ASCII.GetString(answer, 0, count));
        await console.CloseAsync(WebSocketCloseStatus.NormalClosure, "", s_none);
    }

    [Fact]
    public async Task A_text_message_of_the_console_is_the_size_of_the_terminal_and_nothing_else()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        await daemon.Client.DoAsync("web1", "start", s_none);
        FakeWorker worker = daemon.Workers.Alive.Values.Single();
        using (WebSocket console = await daemon.Client.ConsoleAsync("web1", s_none))
        {
            await console.SendAsync("""{"columns":97,"rows":31}"""u8.ToArray(), WebSocketMessageType.Text, true, s_none);
            await console.SendAsync("""{"columns":65535,"rows":0}"""u8.ToArray(), WebSocketMessageType.Text, true, s_none);
            await console.SendAsync("x"u8.ToArray(), WebSocketMessageType.Binary, true, s_none);
            byte[] answer = new byte[64];
            // the sizes were no input
            Assert.Equal((1, (byte)'X'), ((await console.ReceiveAsync(answer.AsMemory(), s_none)).Count, answer[0]));
            Assert.Equal([new ConsoleSize(97, 31), new ConsoleSize(65535, 0)], worker.Sizes);
        }

        foreach (string bad in (string[])
        [
            "", "hello", "null", "{}", """{"columns":80}""", """{"columns":65536,"rows":1}""", """{"columns":-1,"rows":1}""",
            """{"columns":1,"rows":1,"x":1}""", new string(' ', 20_000)
        ])
        {
            using WebSocket console = await daemon.Client.ConsoleAsync("web1", s_none);
            await console.SendAsync(Encoding.UTF8.GetBytes(bad), WebSocketMessageType.Text, true, s_none);
            Assert.Equal(WebSocketMessageType.Close, (await console.ReceiveAsync(new byte[64].AsMemory(), s_none)).MessageType);
            Assert.Equal(WebSocketCloseStatus.InvalidPayloadData, console.CloseStatus);
            await console.CloseOutputAsync(WebSocketCloseStatus.NormalClosure, "", s_none);
        }

        Assert.Equal(2, worker.Sizes.Count);
    }

    [Fact]
    public async Task Bad_bodies_of_every_kind_are_answered_and_the_daemon_goes_on()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        using HttpClient http = Raw(daemon);
        foreach ((HttpContent body, HttpStatusCode status) in new (HttpContent, HttpStatusCode)[]
        {
            (new ByteArrayContent([0xFF, 0xFE, 0x80]), HttpStatusCode.BadRequest),
            (new ByteArrayContent(new byte[2 << 20]), HttpStatusCode.RequestEntityTooLarge),
            (new StringContent(""), HttpStatusCode.UnprocessableEntity),
            (new StringContent("{[}"), HttpStatusCode.UnprocessableEntity),
            (new StringContent("- a\n- b"), HttpStatusCode.UnprocessableEntity),
        })
        {
            body.Headers.ContentType = new MediaTypeHeaderValue("application/yaml");
            using HttpRequestMessage request = new(HttpMethod.Post, "/api/v1/vms?folder=/tmp") { Content = body };
            request.Headers.ExpectContinue = true; // the refusal of a large body comes before it is sent
            using HttpResponseMessage response = await http.SendAsync(request);
            Assert.Equal(status, response.StatusCode);
            Assert.Equal("application/problem+json", response.Content.Headers.ContentType!.MediaType);
            Problem? problem = JsonSerializer.Deserialize(await response.Content.ReadAsStringAsync(), RestJson.Default.Problem);
            Assert.Equal((int)status, problem!.Status);
            body.Dispose();
        }

        using HttpRequestMessage tag = new(HttpMethod.Delete, "/api/v1/vms/x");
        tag.Headers.TryAddWithoutValidation("If-Match", "\"seven\"");
        using HttpResponseMessage refused = await http.SendAsync(tag);
        Assert.Equal(HttpStatusCode.NotFound, (await http.GetAsync("/nowhere")).StatusCode);
        Assert.Equal(HttpStatusCode.BadRequest, refused.StatusCode);
        Assert.Equal("ok\n", await http.GetStringAsync("/healthz"));
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public async Task Random_and_mutated_specs_never_break_the_daemon()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        using HttpClient http = Raw(daemon);
        Random random = new(11);
        byte[] seed =
            Encoding.UTF8.GetBytes(daemon.Yaml("web1", "cpus: 2\nmemory: 64MiB\nnuma:\n  vnodes:\n  - {cpus: 0-1, memory: 64MiB}\n"));
        int inputs = int.TryParse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS"), out int wanted)
            ? Math.Min(wanted, 50_000)
            : 500;
        for (int i = 0; i < inputs; i++)
        {
            byte[] body = (byte[])seed.Clone();
            for (int change = random.Next(1, 6); change > 0; change--)
            {
                body[random.Next(body.Length)] = (byte)random.Next(256);
            }

            using ByteArrayContent content = new(body);
            content.Headers.ContentType = new MediaTypeHeaderValue("application/yaml");
            using HttpResponseMessage response = await http.PostAsync("/api/v1/vms?folder=" + Uri.EscapeDataString(daemon.Folder), content);
            Assert.True((int)response.StatusCode is 200 or 201 or 400 or 409 or 422,
                $"input {i}: {(int)response.StatusCode} {await response.Content.ReadAsStringAsync()}");
        }
    }

    [Fact]
    public async Task No_daemon_is_an_error_that_says_what_to_do()
    {
        using VmmClient client = new("/nonexistent/vmmd.sock");
        Problem problem = await DaemonFixture.RefusedAsync(() => client.ListAsync(s_none));
        Assert.Equal("daemon-unreachable", problem.Code);
        Assert.Contains("systemctl start vmmd", problem.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_host_and_the_schema_are_served()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        HostInfo host = await daemon.Client.HostAsync(s_none);
        Assert.Contains(host.Kvm, new[] { "hardware", "emulating", "none" });
        Assert.NotEmpty(host.Nodes);
        Assert.Equal(host.Kvm is not "none", host.CpuModels!.Contains("host"));
        using HttpClient http = Raw(daemon);
        using JsonDocument schema = JsonDocument.Parse(await http.GetStringAsync("/api/v1/schema/vm-spec.json"));
        Assert.Equal("object", schema.RootElement.GetProperty("type").GetString());
    }

    private static async Task<(int, string)> CodeOf(Func<Task> request)
    {
        Problem problem = await DaemonFixture.RefusedAsync(request);
        return (problem.Status, problem.Code);
    }

    internal static HttpClient Raw(DaemonFixture daemon) => new(new SocketsHttpHandler
    {
        ConnectCallback = async (_, cancellation) =>
        {
            Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(daemon.Options.SocketPath), cancellation);
            return new NetworkStream(socket, ownsSocket: true);
        },
    })
    { BaseAddress = new Uri("http://vmmd/") };
}
