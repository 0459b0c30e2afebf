using System.Diagnostics;
using System.Net;
using System.Net.WebSockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text.Json;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Metrics;
using Vmm.Daemon.Vms;
using Vmm.Testing;

namespace Vmm.Daemon.Tests;

public sealed class AccessTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Fact]
    public async Task Every_route_says_who_may_use_it_and_only_changes_are_for_more_than_viewers()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        RouteEndpoint[] routes = [.. daemon.Host.Routes.SelectMany(s => s.Endpoints).OfType<RouteEndpoint>()];
        Assert.True(routes.Length > 15);
        foreach (RouteEndpoint route in routes)
        {
            RouteRole role = route.Metadata.GetMetadata<RouteRole>()
                ?? throw new InvalidOperationException($"{route.DisplayName} has no role");
            string method = route.Metadata.GetMetadata<HttpMethodMetadata>()!.HttpMethods.Single();
            Assert.True(method is "GET" || role.Least > Role.Viewer || role.Least == Role.Peer,
                $"{route.DisplayName} changes something and is for {role.Least}");
        }

        Assert.Equal(
            ["/healthz"], routes.Where(r => r.Metadata.GetMetadata<RouteRole>()!.Least is null).Select(r => r.RoutePattern.RawText!));
    }

    [Fact]
    public async Task Over_tls_only_a_known_certificate_or_a_good_token_gets_in_and_only_as_far_as_its_role()
    {
        using Authority ours = new("ours"), others = new("others");
        X509Certificate2 viewer = ours.Client("viewer"), admin = ours.Client("admin"), stranger = ours.Client("stranger"),
            forged = others.Client("admin");
        await using DaemonFixture daemon =
            await DaemonFixture.StartAsync(folder => ours.Options(folder, ("viewer", Role.Viewer, viewer), ("admin", Role.Admin, admin)));
        Uri server = daemon.Host.TlsAddress!;
        await daemon.CreateAsync("web1");

        async Task<string> CodeAsync(string? token, X509Certificate2? certificate, Func<VmmClient, Task> request)
        {
            using VmmClient client = new(server, token, certificate, ours.Trusted);
            try
            {
                await request(client);
                return "ok";
            }
            catch (VmmApiException e)
            {
                return e.Problem.Code;
            }
        }

        Assert.Equal("ok", await CodeAsync(null, viewer, c => c.ShowAsync("web1", s_none)));
        Assert.Equal("forbidden", await CodeAsync(null, viewer, c => c.DoAsync("web1", "start", s_none)));
        Assert.Equal("ok", await CodeAsync(null, admin, c => c.DoAsync("web1", "start", s_none)));
        Assert.Equal("unauthenticated", await CodeAsync(null, null, c => c.ListAsync(s_none)));
        Assert.Equal("unauthenticated", await CodeAsync(null, stranger, c => c.ListAsync(s_none)));
        Assert.Equal("daemon-unreachable", await CodeAsync(null, forged, c => c.ListAsync(s_none))); // the handshake fails
        using (VmmClient wrong = new(server, null, admin, others.Trusted))
        {
            Assert.Contains(
                "no secure connection", (await DaemonFixture.RefusedAsync(() => wrong.ListAsync(s_none))).Detail, StringComparison.Ordinal);
        }

        NewToken token = await daemon.Client.CreateTokenAsync(new TokenWish("ci", "operator", 1), s_none);
        Assert.Equal("ok", await CodeAsync(token.Token, null, c => c.DoAsync("web1", "pause", s_none)));
        Assert.Equal("forbidden", await CodeAsync(token.Token, null, c => c.DeleteAsync("web1", s_none)));
        Assert.Equal("forbidden", await CodeAsync(token.Token, null, c => c.CreateTokenAsync(new TokenWish("more", "admin"), s_none)));
        Assert.Equal(
            "unauthenticated", await CodeAsync(token.Token[..^1] + (token.Token[^1] == 'a' ? 'b' : 'a'), null, c => c.ListAsync(s_none)));
        // a bad token is not saved by a good certificate
        Assert.Equal("unauthenticated", await CodeAsync(new string('x', 100_000)[..4000], admin, c => c.ListAsync(s_none)));
        Assert.Equal("ci", Assert.Single((await daemon.Client.TokensAsync(s_none)).Tokens).Name);
        await daemon.Client.DeleteTokenAsync(token.Info.Id, s_none);
        Assert.Equal("unauthenticated", await CodeAsync(token.Token, null, c => c.ListAsync(s_none)));
        Assert.Equal(
            "token-not-found", (await DaemonFixture.RefusedAsync(() => daemon.Client.DeleteTokenAsync(token.Info.Id, s_none))).Code);
    }

    [Fact]
    [Trait("Tier", "kvm")]
    public async Task Vmmctl_over_https_says_in_one_line_why_it_gets_nowhere()
    {
        using Authority ours = new("ours"), others = new("others");
        X509Certificate2 viewer = ours.Client("viewer"), stranger = ours.Client("stranger");
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(folder => ours.Options(folder, ("viewer", Role.Viewer, viewer)));
        await daemon.CreateAsync("web1");
        string mine = WritePem(daemon, "viewer", viewer), strange = WritePem(daemon, "stranger", stranger),
            wrong = Path.Combine(daemon.Folder, "wrong-ca.pem"), token = Path.Combine(daemon.Folder, "token");
        await File.WriteAllTextAsync(wrong, others.Trusted[0].ExportCertificatePem());
        NewToken made = await daemon.Client.CreateTokenAsync(new TokenWish("ci", "operator", 1), s_none);
        await File.WriteAllTextAsync(token, made.Token + "\n");

        Assert.Contains("web1", await VmmctlAsync(0, "vm", "list", "--certificate", mine), StringComparison.Ordinal);
        Assert.Contains("is viewer and POST", await VmmctlAsync(1, "vm", "start", "web1", "--certificate", mine), StringComparison.Ordinal);
        Assert.Contains("web1 is running", await VmmctlAsync(0, "vm", "start", "web1", "--token-file", token), StringComparison.Ordinal);
        Assert.Contains("vmmctl: ", await VmmctlAsync(1, "vm", "list"), StringComparison.Ordinal);
        Assert.Contains("vmmctl: ", await VmmctlAsync(1, "vm", "list", "--certificate", strange), StringComparison.Ordinal);
        Assert.Contains(
            "no secure connection", await VmmctlAsync(1, "vm", "list", "--certificate", mine, "--ca", wrong), StringComparison.Ordinal);
        Assert.Contains("does not exist", await VmmctlAsync(2, "vm", "list", "--certificate", "/nowhere.pem"), StringComparison.Ordinal);
        await daemon.Client.DeleteTokenAsync(made.Info.Id, s_none);
        Assert.Contains("vmmctl: ", await VmmctlAsync(1, "vm", "list", "--token-file", token), StringComparison.Ordinal);

        async Task<string> VmmctlAsync(int exitCode, params string[] arguments)
        {
            string[] ca = arguments.Contains("--ca") ? [] : ["--ca", Path.Combine(daemon.Folder, "ca.pem")];
            ProcessStartInfo start =
                new(Tree.Published("vmmctl", "vmmctl"), ["--host", daemon.Host.TlsAddress!.ToString(), .. ca, .. arguments])
                {
                    RedirectStandardOutput = true,
                    RedirectStandardError = true,
                    UseShellExecute = false
                };
            using Process process = Process.Start(start)!;
            Task<string> errors = process.StandardError.ReadToEndAsync();
            string said = await process.StandardOutput.ReadToEndAsync() + await errors;
            await process.WaitForExitAsync();
            Assert.True(process.ExitCode == exitCode, $"{string.Join(' ', arguments)}: {process.ExitCode}: {said}");
            Assert.True(exitCode == 0 || said.Trim().Split('\n').Length == 1, said);
            return said;
        }
    }

    private static string WritePem(DaemonFixture daemon, string name, X509Certificate2 certificate)
    {
        string path = Path.Combine(daemon.Folder, name + ".pem");
        File.WriteAllText(path, certificate.ExportCertificatePem() + "\n" + certificate.GetECDsaPrivateKey()!.ExportPkcs8PrivateKeyPem());
        return path;
    }

    [Fact]
    public async Task An_expired_token_opens_nothing()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.StopDaemonAsync();
        using Inventory.VmInventory inventory = Inventory.VmInventory.Open(Path.Combine(daemon.Options.StateFolder, "inventory.db"));
        TokenStore store = new(inventory.Tokens);
        NewToken token = store.Create("old", Role.Admin, TimeSpan.FromDays(1));
        Assert.NotNull(store.Find(token.Token, DateTimeOffset.UtcNow));
        Assert.Null(store.Find(token.Token, DateTimeOffset.UtcNow.AddDays(1).AddSeconds(2)));
        Assert.Null(store.Find("", DateTimeOffset.UtcNow));
        inventory.Dispose();
        await daemon.StartDaemonAsync();
    }

    [Fact]
    public async Task A_token_opens_the_tls_port_until_its_time_is_over()
    {
        using Authority ours = new("ours");
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(folder => ours.Options(folder));
        await daemon.StopDaemonAsync();
        NewToken brief, old;
        using (Inventory.VmInventory inventory = Inventory.VmInventory.Open(Path.Combine(daemon.Options.StateFolder, "inventory.db")))
        {
            TokenStore store = new(inventory.Tokens);
            old = store.Create("old", Role.Admin, TimeSpan.FromSeconds(-1));
            brief = store.Create("brief", Role.Admin, TimeSpan.FromSeconds(20));
        }

        await daemon.StartDaemonAsync();
        Uri server = daemon.Host.TlsAddress!;
        using (VmmClient client = new(server, old.Token, null, ours.Trusted))
        {
            Assert.Equal("unauthenticated", (await DaemonFixture.RefusedAsync(() => client.ListAsync(s_none))).Code);
            Assert.Equal("unauthenticated", (await DaemonFixture.RefusedAsync(() => client.DoAsync("web1", "stop", s_none))).Code);
        }

        // One connection, kept alive: it is the request that is checked, not the connection.
        using VmmClient live = new(server, brief.Token, null, ours.Trusted);
        Assert.Empty((await live.ListAsync(s_none)).Vms);
        TimeSpan left = brief.Info.Expires - DateTimeOffset.UtcNow + TimeSpan.FromMilliseconds(100);
        await Task.Delay(left > TimeSpan.Zero ? left : TimeSpan.Zero);
        Assert.Equal("unauthenticated", (await DaemonFixture.RefusedAsync(() => live.ListAsync(s_none))).Code);
    }

    [Fact]
    public async Task What_a_token_has_open_over_tls_ends_with_its_time()
    {
        using Authority ours = new("ours");
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(folder => ours.Options(folder));
        await daemon.CreateAsync("web1");
        await daemon.Client.DoAsync("web1", "start", s_none);
        await daemon.StopDaemonAsync();
        NewToken brief, lasting;
        using (Inventory.VmInventory inventory = Inventory.VmInventory.Open(Path.Combine(daemon.Options.StateFolder, "inventory.db")))
        {
            TokenStore store = new(inventory.Tokens);
            brief = store.Create("brief", Role.Admin, TimeSpan.FromSeconds(15));
            lasting = store.Create("lasting", Role.Admin, TimeSpan.FromDays(3000)); // more than a timer can do
        }

        await daemon.StartDaemonAsync();
        using VmmClient client = new(daemon.Host.TlsAddress!, brief.Token, null, ours.Trusted),
            other = new(daemon.Host.TlsAddress!, lasting.Token, null, ours.Trusted);
        using WebSocket console = await client.ConsoleAsync("web1", s_none), stays = await other.ConsoleAsync("web1", s_none);
        Task<int> events = CountAsync(client.EventsAsync(null, s_none).GetAsyncEnumerator());
        await console.SendAsync("echo"u8.ToArray(), WebSocketMessageType.Binary, endOfMessage: true, s_none);
        byte[] buffer = new byte[64];
        Assert.True((await console.ReceiveAsync(buffer.AsMemory(), s_none)).Count > 0);
        Assert.False(events.IsCompleted);

        using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(40));
        ValueWebSocketReceiveResult last;
        do
        {
            last = await console.ReceiveAsync(buffer.AsMemory(), deadline.Token);
        }
        while (last.MessageType != WebSocketMessageType.Close);
        Assert.True(DateTimeOffset.UtcNow >= brief.Info.Expires);
        Assert.Equal(
            (WebSocketCloseStatus.PolicyViolation, "the token has expired"), (console.CloseStatus, console.CloseStatusDescription));
        _ = await events.WaitAsync(deadline.Token); // ends as a stream does, and is no error
        Assert.Equal("unauthenticated", (await DaemonFixture.RefusedAsync(() => client.ListAsync(s_none))).Code);

        await stays.SendAsync("echo"u8.ToArray(), WebSocketMessageType.Binary, endOfMessage: true, s_none);
        Assert.True((await stays.ReceiveAsync(buffer.AsMemory(), deadline.Token)).Count > 0);
    }

    [Fact]
    public async Task What_a_token_has_open_ends_when_it_is_deleted_and_other_tokens_stay()
    {
        using Authority ours = new("ours");
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(folder => ours.Options(folder));
        await daemon.CreateAsync("web1");
        await daemon.Client.DoAsync("web1", "start", s_none);
        NewToken going = await daemon.Client.CreateTokenAsync(new TokenWish("going", "admin"), s_none),
            staying = await daemon.Client.CreateTokenAsync(new TokenWish("staying", "admin"), s_none);
        using VmmClient client = new(daemon.Host.TlsAddress!, going.Token, null, ours.Trusted),
            other = new(daemon.Host.TlsAddress!, staying.Token, null, ours.Trusted);
        using WebSocket console = await client.ConsoleAsync("web1", s_none), stays = await other.ConsoleAsync("web1", s_none);
        IAsyncEnumerator<DaemonEvent> stream = client.EventsAsync(0, s_none).GetAsyncEnumerator();
        Assert.True(await stream.MoveNextAsync()); // it is open: what happened before is there at once
        Task<int> events = CountAsync(stream);
        await EchoAsync(console);
        Assert.False(events.IsCompleted);

        await daemon.Client.DeleteTokenAsync(going.Info.Id, s_none);
        await EndsAsync(console, "the token was revoked");
        using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(30));
        _ = await events.WaitAsync(deadline.Token);
        Assert.Equal("unauthenticated", (await DaemonFixture.RefusedAsync(() => client.ListAsync(s_none))).Code);
        await EchoAsync(stays);
    }

    [Fact]
    public async Task What_a_certificate_has_open_ends_when_the_settings_do_not_name_it_any_more()
    {
        using Authority ours = new("ours");
        using X509Certificate2 ada = ours.Client("ada"), bob = ours.Client("bob");
        await using DaemonFixture daemon =
            await DaemonFixture.StartAsync(folder => ours.Options(folder, ("ada", Role.Admin, ada), ("bob", Role.Operator, bob)));
        await daemon.CreateAsync("web1");
        await daemon.Client.DoAsync("web1", "start", s_none);
        using VmmClient client = new(daemon.Host.TlsAddress!, null, ada, ours.Trusted),
            other = new(daemon.Host.TlsAddress!, null, bob, ours.Trusted);
        using WebSocket console = await client.ConsoleAsync("web1", s_none), stays = await other.ConsoleAsync("web1", s_none);
        await EchoAsync(console);

        daemon.Host.Reload(daemon.Options with { Certificates = [.. daemon.Options.Certificates.Where(c => c.Name is "bob")] }, "");
        await EndsAsync(console, "the certificate was revoked");
        Assert.Equal("unauthenticated", (await DaemonFixture.RefusedAsync(() => client.ListAsync(s_none))).Code);
        await EchoAsync(stays);
    }

    [Fact]
    public async Task A_token_that_is_deleted_between_its_request_and_the_answer_keeps_nothing_open()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.StopDaemonAsync();
        using (Inventory.VmInventory inventory = Inventory.VmInventory.Open(Path.Combine(daemon.Options.StateFolder, "inventory.db")))
        {
            TokenStore store = new(inventory.Tokens);
            NewToken token = store.Create("brief", Role.Admin, TimeSpan.FromDays(1));
            CancellationToken early = store.Watch(token.Info.Id);
            Assert.False(early.IsCancellationRequested);
            Assert.True(store.Remove(token.Info.Id));
            Assert.True(SpinWait.SpinUntil(() => early.IsCancellationRequested, TimeSpan.FromSeconds(30)));
            using Welcome late = new(new Principal("token:brief", Role.Admin) { Watch = () => store.Watch(token.Info.Id) }, s_none);
            Assert.True(late.Over.IsCancellationRequested);
            Assert.Equal("the token was revoked", late.Reason);
            Assert.False(store.Remove(token.Info.Id));
        }

        await daemon.StartDaemonAsync();
    }

    private static async Task EchoAsync(WebSocket console)
    {
        using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(30));
        await console.SendAsync("echo"u8.ToArray(), WebSocketMessageType.Binary, endOfMessage: true, deadline.Token);
        Assert.True((await console.ReceiveAsync(new byte[64].AsMemory(), deadline.Token)).Count > 0);
    }

    private static async Task EndsAsync(WebSocket console, string why)
    {
        using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(30));
        ValueWebSocketReceiveResult last;
        do
        {
            last = await console.ReceiveAsync(new byte[64].AsMemory(), deadline.Token);
        }
        while (last.MessageType != WebSocketMessageType.Close);
        Assert.Equal((WebSocketCloseStatus.PolicyViolation, why), (console.CloseStatus, console.CloseStatusDescription));
    }

    private static async Task<int> CountAsync(IAsyncEnumerator<DaemonEvent> events)
    {
        int count = 0;
        await using (events)
        {
            while (await events.MoveNextAsync())
            {
                count++;
            }
        }

        return count;
    }

    [Theory]
    [InlineData("", "viewer", 1)]
    [InlineData("a\nb", "viewer", 1)]
    [InlineData("a", "root", 1)]
    [InlineData("a", "Admin", 1)]
    [InlineData("a", "admin", 0)]
    [InlineData("a", "admin", 4000)]
    public async Task A_token_that_makes_no_sense_is_refused(string name, string role, int days)
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        Assert.Equal(
            "bad-request",
            (await DaemonFixture.RefusedAsync(() => daemon.Client.CreateTokenAsync(new TokenWish(name, role, days), s_none))).Code);
    }

    [Fact]
    public async Task Every_change_and_every_refusal_is_in_the_audit_log_and_no_secret_is()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        string file = Path.Combine(daemon.Options.StateFolder, "audit.log");
        await daemon.CreateAsync("web1");
        await Assert.ThrowsAsync<VmmApiException>(() => daemon.Client.DoAsync("web1", "pause", s_none));
        NewToken token = await daemon.Client.CreateTokenAsync(new TokenWish("ci", "viewer"), s_none);
        await daemon.Client.ListAsync(s_none);
        await daemon.StopDaemonAsync();
        AuditLine[] lines = [.. File.ReadAllLines(file).Select(l => JsonSerializer.Deserialize(l, AuditJson.Default.AuditLine)!)];
        Assert.Equal(
            ["asked POST /api/v1/vms", "done POST /api/v1/vms", "asked POST /api/v1/vms/web1/pause", "refused POST /api/v1/vms/web1/pause",
                "asked POST /api/v1/tokens", "done POST /api/v1/tokens"],
            lines.Select(l => $"{l.Stage} {l.What}"));
        Assert.Equal((409, "wrong-state"), (lines[3].Status!.Value, lines[3].Code));
        Assert.Equal(lines[2].Request, lines[3].Request);
        Assert.All(lines, l => Assert.StartsWith("uid=", l.Who, StringComparison.Ordinal));
        Assert.DoesNotContain(token.Token, await File.ReadAllTextAsync(file), StringComparison.Ordinal);
        await File.AppendAllTextAsync(file, "{\"at\":\"2026"); // a daemon that died in the middle of a line
        await daemon.StartDaemonAsync();
        await daemon.Client.DeleteAsync("web1", s_none);
        await daemon.StopDaemonAsync();
        Assert.Equal(1, File.ReadAllLines(file).Count(l => !l.EndsWith('}')));
        await daemon.StartDaemonAsync();
    }

    [Fact]
    public void What_cannot_be_recorded_is_not_done_and_full_files_are_put_aside()
    {
        string folder = Directory.CreateTempSubdirectory("vmm-audit-").FullName;
        try
        {
            string path = Path.Combine(folder, "audit.log");
            using AuditLog log = new(path);
            string what = new('x', 1 << 20);
            log.Answered("1", what, what, what, 200, null);
            Assert.InRange(new FileInfo(path).Length, 1, 1024); // a line is bounded, whatever it is about
            for (int i = 0; i < 60_000; i++)
            {
                log.Answered("1", "uid=0", "pid=1", what, 200, null);
            }

            Assert.True(File.Exists(path + ".1"));
            Assert.InRange(new FileInfo(path).Length, 1, 16 << 20);
            log.Dispose();
            ApiException refused = Assert.Throws<ApiException>(() => log.Asked("2", "uid=0", "pid=1", "POST /"));
            Assert.Equal((503, "audit-unavailable"), (refused.Problem.Status, refused.Problem.Code));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [Fact]
    public async Task Metrics_tell_states_requests_and_the_counters_of_running_vms()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        await daemon.CreateAsync("web2");
        await daemon.Client.DoAsync("web1", "start", s_none);
        string text = await daemon.GetAsync("/metrics");
        Assert.Contains("vmm_vms{state=\"running\"} 1\n", text, StringComparison.Ordinal);
        Assert.Contains("vmm_vms{state=\"defined\"} 1\n", text, StringComparison.Ordinal);
        Assert.Contains("vmm_vm_exits_total{vm=\"web1\"} 56\n", text, StringComparison.Ordinal);
        Assert.Contains("vmm_disk_bytes_total{vm=\"web1\",disk=\"disk0\",kind=\"write\"} 1024\n", text, StringComparison.Ordinal);
        Assert.Contains("vmm_disk_requests{vm=\"web1\",disk=\"disk0\",state=\"in-flight\"} 4\n", text, StringComparison.Ordinal);
        Assert.Contains("vmm_disk_requests{vm=\"web1\",disk=\"disk0\",state=\"held\"} 5\n", text, StringComparison.Ordinal);
        // a worker that does not tell
        Assert.DoesNotContain("vmm_disk_requests{vm=\"web1\",disk=\"disk1\"", text, StringComparison.Ordinal);
        Assert.Contains("# TYPE vmm_disk_requests gauge\n", text, StringComparison.Ordinal);
        Assert.Contains("# TYPE vmm_disk_latency_seconds histogram\n", text, StringComparison.Ordinal);
        const string Storage = "{vm=\"web1\",disk=\"disk0\",stage=\"storage\"";
        Assert.Contains($"vmm_disk_latency_seconds_bucket{Storage},le=\"1E-06\"}} 1\n", text, StringComparison.Ordinal);
        Assert.Contains($"vmm_disk_latency_seconds_bucket{Storage},le=\"4E-06\"}} 3\n", text, StringComparison.Ordinal);
        Assert.Contains($"vmm_disk_latency_seconds_bucket{Storage},le=\"+Inf\"}} 7\n", text, StringComparison.Ordinal);
        Assert.Contains($"vmm_disk_latency_seconds_sum{Storage}}} 1.9E-05\n", text, StringComparison.Ordinal);
        Assert.Contains($"vmm_disk_latency_seconds_count{Storage}}} 7\n", text, StringComparison.Ordinal);
        Assert.Contains("# TYPE vmm_net_packets_total counter\n", text, StringComparison.Ordinal);
        Assert.Contains("vmm_net_packets_total{vm=\"web1\",net=\"net0\",kind=\"dropped\"} 10\n", text, StringComparison.Ordinal);
        Assert.Contains("vmm_net_bytes_total{vm=\"web1\",net=\"net0\",kind=\"sent\"} 9\n", text, StringComparison.Ordinal);
        Assert.Contains("vmm_share_requests_total{vm=\"web1\",fs=\"fs0\",kind=\"any\"} 11\n", text, StringComparison.Ordinal);
        Assert.Contains("vmm_share_losses_total{vm=\"web1\",fs=\"fs0\",kind=\"any\"} 2\n", text, StringComparison.Ordinal);
        Assert.Contains("vmm_share_connected{vm=\"web1\",fs=\"fs0\",kind=\"any\"} 1\n", text, StringComparison.Ordinal);
        string[] families = [.. text.Split('\n').Where(line => line.StartsWith("# TYPE ", StringComparison.Ordinal))];
        Assert.Equal(families.Distinct(StringComparer.Ordinal), families); // each is told once, with all its samples
        Assert.Contains(
            "vmm_http_requests_total{route=\"/api/v1/vms\",method=\"POST\",status=\"201\"} 2\n", text, StringComparison.Ordinal);
        Assert.DoesNotContain(
            "web2\"}", text.Replace("vmm_vm_restarts{vm=\"web2\"}", "", StringComparison.Ordinal), StringComparison.Ordinal);
    }

    [Fact]
    public void Labels_and_helps_are_escaped()
    {
        MetricsText text = new();
        text.Family("a", "gauge", "one\ntwo\\");
        text.Sample("a", 0.5, ("l", "q\"b\\n\nend"), ("m", ""));
        Assert.Equal("# HELP a one\\ntwo\\\\\n# TYPE a gauge\na{l=\"q\\\"b\\\\n\\nend\",m=\"\"} 0.5\n", text.ToString());
    }

    [Theory]
    [InlineData("state: /s\nrun: /r\npool: 3\nlisten: https://127.0.0.1:8443\ncertificate: /c\nkey: /k\n", null)]
    [InlineData("# nothing\n", null)]
    [InlineData("pool: 65\n", "vmmd.yaml:1: pool: expected 0 to 64")]
    [InlineData("state: /s\npoool: 1\n", "vmmd.yaml:2: poool: unknown setting")]
    [InlineData("listen: 8443\n", "vmmd.yaml:1: listen: expected https")]
    [InlineData("run:\n", "vmmd.yaml:1: run: is empty")]
    [InlineData("state: \"/a\\0b\"\n", "vmmd.yaml:1: state: expected a path")]
    [InlineData("storage: [/a, \"/b\\0\"]\n", "vmmd.yaml:1: storage: expected a path")]
    [InlineData("storage: [/a, b]\n", "vmmd.yaml:1: storage: expected whole paths of folders")]
    [InlineData("connections: 0\n", "vmmd.yaml:1: connections: expected 1 to 100000")]
    [InlineData("peerConnections: 100000\nconfinement: best\nlogFormat: json\nlogLevel: warning\noperators: o\nviewers: v\n", null)]
    [InlineData("confinement: perhaps\n", "vmmd.yaml:1: confinement: expected require (a VM")]
    [InlineData("logFormat: xml\n", "vmmd.yaml:1: logFormat: expected text or json")]
    [InlineData("memory: {overcommit: 1.5}\nmemoryOvercommit: 2\n", null)]
    [InlineData("memory: {overcommit: 0}\n", "vmmd.yaml:1: memory: overcommit: expected a ratio from 0.1 to 100, such as 1.5")]
    [InlineData("memory: {weight: 1}\n", "vmmd.yaml:1: memory: weight is no setting of it; known here: overcommit")]
    [InlineData("balancerInterval: 3601\n", "vmmd.yaml:1: balancerInterval: expected 1 to 3600 seconds")]
    [InlineData("a: [", "not valid YAML")]
    [InlineData("- a\n", "expected settings")]
    [InlineData("principals: [{name: a, role: boss, certificate: ab}]\n", "vmmd.yaml:1: principals: expected a list")]
    [InlineData("principals: x\n", "principals: expected a list of principals")]
    public void A_configuration_is_taken_whole_or_refused_with_its_line(string yaml, string? expected)
    {
        DaemonOptions? options = DaemonConfig.Apply(new DaemonOptions(), "vmmd.yaml", yaml, out string problem);
        Assert.Equal(expected is null, options is not null);
        Assert.Contains(expected ?? "", problem, StringComparison.Ordinal);
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Random_configurations_are_answered()
    {
        Random random = new(11);
        string[] words =
        [
            "state", "pool", "listen", "principals", ":", " ", "\n", "- ", "{", "}", "[", "]", "name", "role", "admin", "certificate",
            "sha256:", "&a", "*a", "\"", "'", "|", "0", "\t", "https://[::1]:1"
        ];
        int rounds = int.TryParse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS"), out int n) ? n : 3000;
        for (int i = 0; i < rounds; i++)
        {
            string text = string.Concat(Enumerable.Range(0, random.Next(20)).Select(_ => words[random.Next(words.Length)]));
            DaemonOptions? options = DaemonConfig.Apply(new DaemonOptions(), "f", text, out string problem);
            Assert.Equal(options is null, problem.Length > 0);
        }
    }

    [Fact]
    public void Flags_go_over_the_file_and_what_belongs_together_is_asked_for()
    {
        string file = Path.GetTempFileName();
        try
        {
            File.WriteAllText(file, "pool: 3\nrun: /a\n");
            DaemonOptions options = DaemonOptions.Parse(["--config", file, "--run", "/b"], out string problem)
                ?? throw new InvalidOperationException(problem);
            Assert.Equal((3, "/b"), (options.PoolSize, options.RunFolder));
            foreach ((string[] args, string expected) in new (string[], string)[]
            {
                (["--config", file, "--listen", "https://127.0.0.1:1"], "needs a certificate"),
                (["--config", file, "--client-ca", "/x"], "listen, which is missing"),
                (["--config", file, "--nonsense", "1"], "unknown option"),
                (["--config", "/nowhere"], "cannot be read"), (["--config"], "needs a value"),
                (["x", "y", "--config", file], "unknown option"),
            })
            {
                Assert.Null(DaemonOptions.Parse(args, out problem));
                Assert.Contains(expected, problem, StringComparison.Ordinal);
            }
        }
        finally
        {
            File.Delete(file);
        }
    }
}
