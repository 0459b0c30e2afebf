using System.Net;
using System.Net.Http.Headers;
using System.Net.WebSockets;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization.Metadata;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Api;
using Vmm.Daemon.Inventory;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Tests;

/// <summary>
/// What a request says that its route does not know is refused and named, on every route and in every body: nothing is passed over.
/// </summary>
public sealed class StrictInputTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    // A sound body of each route that takes JSON; a route without one fails the test.
    private static readonly Dictionary<string, string> s_sound = new(StringComparer.Ordinal)
    {
        ["PUT /api/v1/vms/{name}/memory"] = """{"vnode":0,"bytes":67108864,"force":false}""",
        ["PUT /api/v1/vms/{name}/devices/{device}/limits"] =
            """{"bytesPerSecond":1000000,"operationsPerSecond":50,"burstBytes":4096,"burstOperations":3}""",
        ["POST /api/v1/vms/{name}/exec"] = """{"command":["/bin/true","a"],"input":"aGk=","seconds":9}""",
        ["PUT /api/v1/vms/{name}/seed"] =
            """
            {"userData":"aGk=","networkConfig":"aGk=","sshKeys":["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"],"hostname":"a",
            "passwordHash":"$6$abcdefgh$ijklmnop","once":true}
            """,
        ["POST /api/v1/vms/{name}/backup"] =
            """{"folder":"/srv/b","disks":["disk0"],"quiesceSeconds":9,"quiesceRequired":true,"full":true,"bytesPerSecond":1048576}""",
        ["PUT /api/v1/vms/{name}/replica"] =
            """
            {"to":"https://nowhere.invalid:8443","disks":["disk0"],"intervalSeconds":30,"keep":{"allSeconds":9,"hourly":2,"daily":1},
            "bytesPerSecond":1048576,"quiesceSeconds":59}
            """,
        ["POST /api/v1/vms/{name}/replica/pause"] = """{"reason":"a","seconds":9}""",
        ["POST /api/v1/vms/{name}/snapshot"] =
            """{"name":"a","disks":["disk0"],"to":["/srv/a.qcow2"],"quiesceSeconds":9,"quiesceRequired":true}""",
        ["POST /api/v1/vms/{name}/devices/{device}/copy"] = """{"to":"/srv/a.img","cache":"direct","bytesPerSecond":1048576}""",
        ["POST /api/v1/vms/{name}/devices/{device}/commit"] = """{"base":"/srv/a.img","delete":true,"bytesPerSecond":1048576}""",
        ["POST /api/v1/vms/{name}/devices/{device}/stream"] = """{"base":"/srv/a.img","bytesPerSecond":1048576}""",
        ["PUT /api/v1/vms/{name}/devices/{device}/size"] = """{"sizeBytes":1048576}""",
        ["POST /api/v1/vms/{name}/vnodes/{vnode}/rehome"] = """{"hostNodes":"0","bytesPerSecond":1000000000}""",
        ["POST /api/v1/vms/{name}/save"] = """{"folder":"/nowhere/saved"}""",
        ["POST /api/v1/vms/{name}/upgrade"] = """{"maxDowntimeMilliseconds":50}""",
        ["POST /api/v1/vms/{name}/migrate"] = """{"to":"https://nowhere.invalid:8443","maxDowntimeMilliseconds":50}""",
        ["POST /api/v1/vms/{name}/settle"] = """{"where":"here","confirm":"web1"}""",
        ["POST /api/v1/migrations"] =
            """{"id":"a","vm":"a","name":"a","spec":"a","folder":"","current":"a","files":["a"],"channels":1,"timeoutSeconds":9}""",
        ["PUT /api/v1/replication/{vm}"] =
            """
            {"vm":"a","name":"a","source":"h","generations":{"current":"a","lastCommon":"b","older":"c","oldest":"d"},
            "disks":[{"name":"disk0","bytes":1048576}],"keep":{"allSeconds":9,"hourly":2,"daily":1}}
            """,
        ["POST /api/v1/replication/{vm}/points"] =
            """
            {"id":"a","parent":"","generation":"a","time":"2026-12-01T12:00:00Z","quiesced":"q","isLast":true,"spec":"name: a",
            "variables":"aGk=","disks":[{"name":"disk0","bytes":1048576,"stored":4096,"seal":"a","root":"b","why":"c"}]}
            """,
        ["POST /api/v1/replicas/{name}/test-failover"] = """{"point":1,"network":"lab","as":"t","start":false}""",
        ["POST /api/v1/replicas/{name}/failover"] = """{"point":1,"as":"t","networks":["br0=br1"],"start":false,"confirm":"x"}""",
        ["POST /api/v1/replicas/{name}/verify"] = """{"point":1}""",
        ["POST /api/v1/restore"] = """{"folder":"/nowhere/saved"}""",
        ["PUT /api/v1/balancer"] = """{"enabled":false,"dryRun":true}""",
        ["PUT /api/v1/log"] = """{"level":"error"}""",
        ["PUT /api/v1/vms/{name}/cpu"] = """{"quotaPercent":150,"weight":200}""",
        ["POST /api/v1/images"] = """{"name":"a","path":"/srv/a.qcow2","format":"qcow2"}""",
        ["POST /api/v1/images/{name}/export"] = """{"to":"/srv/a.qcow2","format":"raw"}""",
        ["PUT /api/v1/networks/{name}"] = """{"ipv6":"none"}""",
        ["POST /api/v1/networks"] = """{"name":"../a","subnet":"10.1.2.0/24","isolated":true,"ipv6":"none"}""",
        ["POST /api/v1/disks"] = """{"name":"a.img","sizeBytes":1048576,"format":"raw","preallocate":false}""",
        ["POST /api/v1/tokens"] = """{"name":"ann","role":"viewer","days":3}""",
    };

    [Fact]
    public async Task A_misspelt_quota_is_named_and_the_quota_that_was_set_stays()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        using HttpClient http = ApiTests.Raw(daemon);
        await daemon.CreateAsync("x", "cpuQuota: 50%\n");
        await daemon.Client.DoAsync("x", "start", s_none);
        int? before = (await daemon.Client.CpuAsync("x", s_none)).QuotaPercent;
        Problem problem = await RefusedAsync(http, HttpMethod.Put, "/api/v1/vms/x/cpu", """{"quotaPercnt": 60}""");
        Assert.Equal((400, "bad-request"), (problem.Status, problem.Code));
        Assert.Contains("quotaPercnt: unknown field; did you mean quotaPercent?", problem.Detail, StringComparison.Ordinal);
        Assert.Equal("quotaPercnt", Assert.Single(problem.Errors!).Field);
        Assert.Equal(before, (await daemon.Client.CpuAsync("x", s_none)).QuotaPercent);
    }

    [Fact]
    public async Task A_misspelt_grace_is_named_and_the_guest_runs_on()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        using HttpClient http = ApiTests.Raw(daemon);
        await daemon.CreateAsync("x");
        await daemon.Client.DoAsync("x", "start", s_none);
        foreach ((string query, string named) in new[]
        {
            ("gracefull=20", "gracefull: unknown parameter; did you mean graceful?"),
            ("Graceful=20", "Graceful: unknown parameter; did you mean graceful?"),
            ("graceful", "graceful: \"\", expected 0 to 600 seconds"), ("graceful=", "graceful: \"\", expected"),
            ("graceful=-1", "graceful: \"-1\", expected"),
            ("graceful=601", "graceful: \"601\", expected 0 to 600"), ("graceful=4294967297", "expected 0 to 600"),
            ("graceful=1.5", "graceful: \"1.5\""), ("graceful=+1", "graceful: \" 1\""), ("graceful=soon", "graceful: \"soon\""),
            ("graceful=1&graceful=1", "graceful: given 2 times"),
            ("graceful=1&GRACEFUL=2", "GRACEFUL: unknown parameter; did you mean graceful?"), ("graceful=1&x=2", "x: unknown parameter"),
            ("=1", ": unknown parameter"),
        })
        {
            Problem problem = await RefusedAsync(http, HttpMethod.Post, "/api/v1/vms/x/stop?" + query, null);
            Assert.Equal((400, "bad-request"), (problem.Status, problem.Code));
            Assert.Contains(named, problem.Detail, StringComparison.Ordinal);
        }

        Problem body = await RefusedAsync(http, HttpMethod.Post, "/api/v1/vms/x/stop", """{"graceful": 20}""");
        Assert.Contains("takes none", body.Detail, StringComparison.Ordinal);
        Assert.Equal(VmState.Running, (await daemon.Client.ShowAsync("x", s_none)).State);
        Assert.Equal(0, daemon.Workers.Alive.Values.Single().PowerButtonPresses);
    }

    [Fact]
    public async Task Every_route_refuses_a_parameter_that_it_does_not_know_one_twice_and_one_of_the_wrong_kind()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        using HttpClient http = ApiTests.Raw(daemon);
        foreach (RouteEndpoint route in Routes(daemon))
        {
            (HttpMethod method, string path) = Target(route);
            Assert.Contains(
                "nosuch: unknown parameter", (await RefusedAsync(http, method, path + "?nosuch=1", null)).Detail, StringComparison.Ordinal);
            foreach (QueryParameter parameter in route.Metadata.GetOrderedMetadata<QueryParameter>())
            {
                string good = parameter.Type is "integer" ? "1" : parameter.Type is "boolean" ? "true" : "/tmp";
                Assert.Contains(
                    $"{parameter.Name}: given 2 times",
                    (await RefusedAsync(http, method, $"{path}?{parameter.Name}={good}&{parameter.Name}={good}", null)).Detail,
                    StringComparison.Ordinal);
                Assert.Contains(
                    "unknown parameter",
                    (await RefusedAsync(http, method, $"{path}?{parameter.Name.ToUpperInvariant()}={good}", null)).Detail,
                    StringComparison.Ordinal);
                foreach (string wrong in parameter.Type is "integer"
                    ? ["", "-1", "x", (parameter.Most + 1).ToString(System.Globalization.CultureInfo.InvariantCulture)]
                    : parameter.Type is "boolean" ? new[] { "", "yes", "1", "True" }
                    : [])
                {
                    Assert.Contains(
                        $"{parameter.Name}: \"{wrong}\", expected",
                        (await RefusedAsync(http, method, $"{path}?{parameter.Name}={wrong}", null)).Detail,
                        StringComparison.Ordinal);
                }
            }
        }
    }

    [Theory]
    [InlineData("""{"!a\ud800- ":"/nowhere/saved"}""")]
    [InlineData("""{"folder":"\udc00"}""")]
    public async Task Half_of_a_surrogate_pair_is_no_text(string body)
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        using HttpClient http = ApiTests.Raw(daemon);
        await daemon.CreateAsync("x");
        Problem problem = await RefusedAsync(http, HttpMethod.Post, "/api/v1/vms/x/save", body);
        Assert.Equal((400, "bad-request"), (problem.Status, problem.Code));
    }

    [Fact]
    public async Task Every_body_refuses_a_field_that_is_unknown_missing_null_given_twice_or_of_the_wrong_kind()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        using HttpClient http = ApiTests.Raw(daemon);
        await daemon.CreateAsync("x");
        await daemon.Client.DoAsync("x", "start", s_none);
        RouteEndpoint[] routes = [.. Routes(daemon).Where(r => Entry(r).Body is not null)];
        Assert.Equal(s_sound.Keys.Order(StringComparer.Ordinal), routes.Select(Key).Order(StringComparer.Ordinal));
        foreach (RouteEndpoint route in routes)
        {
            (HttpMethod method, string path) = Target(route);
            string sound = s_sound[Key(route)];
            JsonObject members = JsonNode.Parse(sound)!.AsObject();
            JsonTypeInfo type = RequestJson.Default.GetTypeInfo(Entry(route).Body!.Type)
                ?? throw new InvalidOperationException($"{Key(route)} is read by another reader");
            Assert.All(type.Properties, p => Assert.True(
                p.PropertyType.IsValueType || p.PropertyType == typeof(string) || p.PropertyType == typeof(byte[])
                    || p.PropertyType == typeof(IReadOnlyList<string>) || IsPart(type, p),
                $"{p.Name} of {Key(route)} has fields of its own, which nobody names"));
            await NamesAsync(sound.Replace("{", "{\"nosuch\":1,", StringComparison.Ordinal), "nosuch", "unknown field");
            foreach ((string name, JsonNode? value) in members)
            {
                await NamesAsync(
                    sound.Replace($"\"{name}\"", $"\"{char.ToUpperInvariant(name[0])}{name[1..]}\"", StringComparison.Ordinal),
                    char.ToUpperInvariant(name[0]) + name[1..],
                    "unknown field");
                await NamesAsync(
                    sound.Replace("{", $"{{\"{name}\":{value!.ToJsonString()},", StringComparison.Ordinal), name, "given twice");
                await NamesAsync(Change(members, name, null), name, "is null");
                await NamesAsync(Change(members, name, new JsonArray(1)), name, "expected");
                if (IsPart(type, type.Properties.Single(p => p.Name == name)))
                {
                    await PartsAsync(name, value);
                }
                else
                {
                    await NamesAsync(Change(members, name, new JsonObject()), name, "expected");
                }

                await NamesAsync(
                    Change(members, name, value.GetValueKind() == JsonValueKind.String ? JsonValue.Create(1) : JsonValue.Create("x")),
                    name,
                    "expected");
                if (value.GetValueKind() == JsonValueKind.Number)
                {
                    await NamesAsync(Change(members, name, JsonValue.Create(1.5)), name, "expected");
                    await NamesAsync(sound.Replace(value.ToJsonString(), "1e400", StringComparison.Ordinal), name, "expected");
                    await NamesAsync(
                        sound.Replace(value.ToJsonString(), "99999999999999999999999", StringComparison.Ordinal), name, "expected");
                }

                if (type.Properties.Single(p => p.Name == name).IsRequired)
                {
                    await NamesAsync(Without(members, name), name, "is missing");
                }
            }

            foreach (string none in new[] { "", "null", "[]", "1", "\"x\"", "{", "{}{}", "{\"a\":1,}", "// x\n{}" })
            {
                Assert.Equal(400, (await RefusedAsync(http, method, path, none)).Status);
            }

            // The same for the fields of an object in it, or of each of a list.
            async Task PartsAsync(string name, JsonNode value)
            {
                JsonObject part = (value as JsonArray)?[0]!.AsObject() ?? value.AsObject();
                string at = value is JsonArray ? name + "[0]" : name;
                string With(JsonObject changed) => Change(members, name, value is JsonArray ? new JsonArray(changed) : changed);
                JsonObject odd = part.DeepClone().AsObject();
                odd["nosuch"] = 1;
                await NamesAsync(With(odd), at + ".nosuch", "unknown field");
                foreach ((string inner, _) in part)
                {
                    JsonObject none = part.DeepClone().AsObject(), wrong = part.DeepClone().AsObject();
                    (none[inner], wrong[inner]) = (null, new JsonArray(1));
                    await NamesAsync(With(none), $"{at}.{inner}", "is null");
                    await NamesAsync(With(wrong), $"{at}.{inner}", "expected");
                }

                if (value is JsonArray)
                {
                    await NamesAsync(Change(members, name, new JsonArray((JsonNode?)null)), name, "expected");
                }
            }

            async Task NamesAsync(string json, string field, string problem)
            {
                Problem refused = await RefusedAsync(http, method, path, json);
                Assert.True(
                    refused.Status == 400 && refused.Detail.Contains(problem, StringComparison.Ordinal) && refused.Errors is [{ } one]
                        && one.Field == field,
                    $"{Key(route)} {json}: {refused.Status} {refused.Detail}");
            }
        }
    }

    [Fact]
    public async Task Every_body_says_what_it_is_and_a_route_without_one_takes_none()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        using HttpClient http = ApiTests.Raw(daemon);
        foreach (RouteEndpoint route in Routes(daemon))
        {
            (HttpMethod method, string path) = Target(route);
            OpenApiEntry entry = Entry(route);
            if (entry.IsOctets)
            {
                Problem text = await RefusedAsync(http, method, path, "{}", "application/json");
                Assert.Equal((415, "unsupported-media-type"), (text.Status, text.Code));
                continue;
            }

            if (entry is { Body: null, IsSpec: false })
            {
                Assert.Contains("takes none", (await RefusedAsync(http, method, path, "{}")).Detail, StringComparison.Ordinal);
                continue;
            }

            // Those a page of another origin can send without asking, and none at all, which it can send, too.
            foreach (string? type in new[]
            {
                "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain; application/json",
                "application/jsonx", null
            })
            {
                Problem refused = await RefusedAsync(http, method, path, "{}", type);
                Assert.Equal((415, "unsupported-media-type"), (refused.Status, refused.Code));
            }

            foreach (string type in new[] { "application/json", "application/yaml", "Application/JSON; charset=utf-8" })
            {
                using HttpResponseMessage response = await SendAsync(http, method, path, "[", type);
                Assert.True(
                    response.StatusCode is HttpStatusCode.BadRequest or HttpStatusCode.UnprocessableEntity or HttpStatusCode.NotFound,
                    $"{Key(route)} {type}: {response.StatusCode}");
            }
        }
    }

    [Fact]
    public async Task A_page_of_another_origin_gets_nowhere_on_any_route_nor_to_a_console()
    {
        using Authority ours = new("ours");
        using System.Security.Cryptography.X509Certificates.X509Certificate2 admin = ours.Client("admin");
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(folder => ours.Options(folder, ("admin", Role.Admin, admin)));
        await daemon.CreateAsync("web1");
        await daemon.Client.DoAsync("web1", "start", s_none);
        Uri server = daemon.Host.TlsAddress!;
        using HttpClient local = ApiTests.Raw(daemon), remote = new(Handler(ours, admin)) { BaseAddress = server };
        foreach (RouteEndpoint route in Routes(daemon))
        {
            (HttpMethod method, string path) = Target(route);
            foreach (HttpClient http in new[] { local, remote })
            {
                foreach ((string name, string value) in new[]
                {
                    ("Origin", "https://evil.example"), ("Origin", "null"), ("Origin", $"http://{server.Authority}"),
                    ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-site")
                })
                {
                    using HttpRequestMessage request = new(method, path);
                    request.Headers.TryAddWithoutValidation(name, value);
                    using HttpResponseMessage response = await http.SendAsync(request);
                    Assert.Equal(
                        "foreign-origin",
                        JsonSerializer.Deserialize(await response.Content.ReadAsStringAsync(), RestJson.Default.Problem)!.Code);
                }
            }
        }

        using (HttpRequestMessage own = new(HttpMethod.Get, "/api/v1/vms"))
        {
            own.Headers.TryAddWithoutValidation("Origin", server.GetLeftPart(UriPartial.Authority));
            own.Headers.TryAddWithoutValidation("Sec-Fetch-Site", "same-origin");
            Assert.Equal(HttpStatusCode.OK, (await remote.SendAsync(own)).StatusCode);
        }

        using ClientWebSocket console = new(), plain = new();
        console.Options.SetRequestHeader("Origin", "https://evil.example");
        using HttpMessageInvoker invoker = new(Handler(ours, admin));
        Uri address = new(new UriBuilder(server) { Scheme = "wss" }.Uri, "/api/v1/vms/web1/console");
        await Assert.ThrowsAsync<WebSocketException>(() => console.ConnectAsync(address, invoker, s_none));
        await plain.ConnectAsync(address, invoker, s_none);
        Assert.Equal(WebSocketState.Open, plain.State);

        static SocketsHttpHandler Handler(Authority ours, System.Security.Cryptography.X509Certificates.X509Certificate2 certificate) =>
            new()
            {
                SslOptions = new()
                {
                    ClientCertificates = [certificate],
                    CertificateChainPolicy = new()
                    {
                        TrustMode = System.Security.Cryptography.X509Certificates.X509ChainTrustMode.CustomRootTrust,
                        CustomTrustStore = { ours.Trusted[0] },
                        RevocationMode = System.Security.Cryptography.X509Certificates.X509RevocationMode.NoCheck
                    },
                },
            };
    }

    [Fact]
    public async Task A_precondition_that_a_route_does_not_honour_is_refused()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        using HttpClient http = ApiTests.Raw(daemon);
        RouteEndpoint[] honour = [.. Routes(daemon).Where(r => r.Metadata.GetMetadata<ConditionalRoute>() is not null)];
        Assert.Equal(
            ["DELETE /api/v1/vms/{name}", "POST /api/v1/vms/{name}/disks", "POST /api/v1/vms/{name}/nets", "PUT /api/v1/vms/{name}",
                "PUT /api/v1/vms/{name}/cpu"],
            honour.Select(Key).Order(StringComparer.Ordinal));
        foreach (RouteEndpoint route in Routes(daemon).Where(r => r.Metadata.GetMetadata<ConditionalRoute>() is null))
        {
            (HttpMethod method, string path) = Target(route);
            using HttpRequestMessage request = new(method, path);
            request.Headers.TryAddWithoutValidation("If-Match", "\"1\"");
            using HttpResponseMessage response = await http.SendAsync(request);
            Assert.Equal(HttpStatusCode.BadRequest, response.StatusCode);
            Assert.Contains("If-Match", await response.Content.ReadAsStringAsync(), StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task Ten_thousand_refused_requests_leave_an_administrators_line_in_the_audit_log()
    {
        using Authority ours = new("ours");
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(folder => ours.Options(folder));
        await daemon.CreateAsync("web1");
        NewToken viewer = await daemon.Client.CreateTokenAsync(new TokenWish("eve", "viewer"), s_none);
        string log = Path.Combine(daemon.Options.StateFolder, "audit.log");
        long before = new FileInfo(log).Length;
        string longest = "/api/v1/vms/" + new string('%', 1).Replace("%", "%0A", StringComparison.Ordinal) + new string('x', 7900);
        using HttpClient stranger = ApiTests.Raw(daemon), eve = ApiTests.Raw(daemon);
        stranger.DefaultRequestHeaders.TryAddWithoutValidation("Authorization", "Bearer nobody");
        eve.DefaultRequestHeaders.TryAddWithoutValidation("Authorization", "Bearer " + viewer.Token);
        await Parallel.ForAsync(0, 10_000, new ParallelOptions { MaxDegreeOfParallelism = 8 }, async (i, cancellation) =>
        {
            using HttpRequestMessage request = new(i % 2 == 0 ? HttpMethod.Delete : HttpMethod.Post, longest);
            using HttpResponseMessage response = await (i % 3 == 0 ? eve : stranger).SendAsync(request, cancellation);
            Assert.True(
                response.StatusCode is HttpStatusCode.Unauthorized or HttpStatusCode.Forbidden or HttpStatusCode.MethodNotAllowed,
                response.StatusCode.ToString());
        });

        Assert.InRange(new FileInfo(log).Length, before, before + 1024);
        Assert.False(File.Exists(log + ".1"));
        Assert.Contains("POST /api/v1/vms\"", await File.ReadAllTextAsync(log), StringComparison.Ordinal);
        string metrics = await daemon.GetAsync("/metrics");
        Assert.Contains("vmm_refused_total{code=\"unauthenticated\"}", metrics, StringComparison.Ordinal);
        Assert.Contains("vmm_refused_total{code=\"forbidden\"}", metrics, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Who_opens_a_console_of_which_vm_and_when_it_ends_is_in_the_audit_log()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        await Assert.ThrowsAsync<VmmApiException>(() => daemon.Client.ConsoleAsync("web1", s_none)); // it does not run
        await daemon.Client.DoAsync("web1", "start", s_none);
        string log = Path.Combine(daemon.Options.StateFolder, "audit.log");
        using (WebSocket console = await daemon.Client.ConsoleAsync("web1", s_none))
        {
            Assert.Equal(["asked", "refused", "asked", "opened"], await StagesAsync(4));
            await console.CloseAsync(WebSocketCloseStatus.NormalClosure, "", s_none);
        }

        Assert.Equal(["asked", "refused", "asked", "opened", "closed"], await StagesAsync(5));

        async Task<string[]> StagesAsync(int wanted)
        {
            AuditLine[] lines = [];
            for (int i = 0; i < 500 && lines.Length < wanted; i++)
            {
                await Task.Delay(20);
                using StreamReader reader = new(new FileStream(log, FileMode.Open, FileAccess.Read, FileShare.ReadWrite));
                lines = [.. (await reader.ReadToEndAsync())
                    .Split('\n', StringSplitOptions.RemoveEmptyEntries)
                    .Select(l => JsonSerializer.Deserialize(l, AuditJson.Default.AuditLine)!)
                    .Where(l => l.What is "GET /api/v1/vms/web1/console")];
            }

            Assert.All(lines, l => Assert.StartsWith("uid=", l.Who, StringComparison.Ordinal));
            return [.. lines.Select(l => l.Stage)];
        }
    }

    internal static RouteEndpoint[] Routes(DaemonFixture daemon) =>
        [.. daemon.Host.Routes.SelectMany(s => s.Endpoints).OfType<RouteEndpoint>()];

    internal static string Key(RouteEndpoint route) =>
        $"{route.Metadata.GetMetadata<HttpMethodMetadata>()!.HttpMethods.Single()} {route.RoutePattern.RawText}";

    /// <summary>The route with names of what is not there, so that nothing is done.</summary>
    internal static (HttpMethod Method, string Path) Target(RouteEndpoint route)
    {
        string[] key = Key(route).Split(' ');
        return (new HttpMethod(key[0]), key[1]
            .Replace("{name}", "x", StringComparison.Ordinal)
            .Replace("{device}", "disk0", StringComparison.Ordinal)
            .Replace("{vnode}", "0", StringComparison.Ordinal)
            .Replace("{vm}", "x", StringComparison.Ordinal)
            .Replace("{point}", "x", StringComparison.Ordinal)
            .Replace("{disk}", "disk0", StringComparison.Ordinal)
            .Replace("{id}", "0", StringComparison.Ordinal));
    }

    private static bool IsPart(JsonTypeInfo type, JsonPropertyInfo field)
    {
        JsonTypeInfo info = type.Options.GetTypeInfo(field.PropertyType);
        JsonTypeInfo each = info.Kind == JsonTypeInfoKind.Enumerable ? type.Options.GetTypeInfo(info.ElementType!) : info;
        return each.Kind == JsonTypeInfoKind.Object;
    }

    private static OpenApiEntry Entry(RouteEndpoint route) =>
        OpenApiTable.Find(Key(route).Split(' ')[0], route.RoutePattern.RawText!) ?? throw new InvalidOperationException(Key(route));

    private static string Change(JsonObject members, string name, JsonNode? value)
    {
        JsonObject changed = members.DeepClone().AsObject();
        changed[name] = value;
        return changed.ToJsonString();
    }

    private static string Without(JsonObject members, string name)
    {
        JsonObject changed = members.DeepClone().AsObject();
        changed.Remove(name);
        return changed.ToJsonString();
    }

    private static async Task<Problem> RefusedAsync(
        HttpClient http, HttpMethod method, string path, string? body, string? type = "application/json")
    {
        using HttpResponseMessage response = await SendAsync(http, method, path, body, type);
        string text = await response.Content.ReadAsStringAsync();
        Assert.True((int)response.StatusCode >= 400, $"{method} {path} {body}: {(int)response.StatusCode} {text}");
        return JsonSerializer.Deserialize(text, RestJson.Default.Problem)!;
    }

    private static async Task<HttpResponseMessage> SendAsync(HttpClient http, HttpMethod method, string path, string? body, string? type)
    {
        using HttpRequestMessage request = new(method, path);
        if (body is not null)
        {
            request.Content = new ByteArrayContent(Encoding.UTF8.GetBytes(body));
            request.Content.Headers.TryAddWithoutValidation("Content-Type", type is null ? [] : [type]);
        }

        return await http.SendAsync(request);
    }
}
