using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Api;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Tests;

/// <summary>Every route that takes a body, through the real pipeline, with bodies of every kind. The workers are fakes.</summary>
[Collection("resources")]
public sealed partial class RestFuzzTests
{
    private const string Spec =
        "name: NAME\ncpus: 2\nmemory: 64MiB\nboot:\n  kernel: kernel\n  cmdline: console=ttyS0\nnuma:\n  vnodes:\n  - {cpus: 0-1, memory: "
        + "64MiB}\ndisks:\n  - path: d.img\n    serial: A1\nnets:\n  - tap: tap0\nvsock: {path: NAME.sock}\ncpuQuota: 50%\n";

    private static readonly CancellationToken s_none = CancellationToken.None;

    // What a body of each route looks like; a route without one fails the test.
    private static readonly Dictionary<string, string[]> s_seeds = new(StringComparer.Ordinal)
    {
        ["POST /api/v1/vms"] = [Spec],
        ["PUT /api/v1/vms/{name}"] = [Spec],
        ["POST /api/v1/host/fit"] = [Spec, Spec.Replace("memory: 64MiB}", "memory: 64MiB, hostNodes: 9}", StringComparison.Ordinal)],
        ["PUT /api/v1/vms/{name}/memory"] = ["""{"vnode":0,"bytes":134217728}""", """{"balloonBytes":1048576}""", """{"auto":true}"""],
        ["PUT /api/v1/vms/{name}/devices/{device}/limits"] =
        [
            """{"bytesPerSecond":1000000,"operationsPerSecond":50,"burstBytes":4096,"burstOperations":3}"""
        ],
        ["POST /api/v1/vms/{name}/exec"] = ["""{"command":["a","b"],"seconds":1}""", """{"command":["a"],"input":"aGk="}"""],
        ["PUT /api/v1/vms/{name}/seed"] =
        [
            """{"userData":"aGk=","hostname":"a","once":true}""",
            """{"sshKeys":["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"],"passwordHash":"$6$abcdefgh$ijklmnop"}"""
        ],
        ["POST /api/v1/vms/{name}/backup"] = ["""{"folder":"/srv/b","quiesceSeconds":1}""", """{"folder":"b","full":true}"""],
        ["PUT /api/v1/vms/{name}/replica"] =
            ["""{"to":"https://127.0.0.1:1","intervalSeconds":5,"keep":{"allSeconds":9}}""", """{"to":"a","disks":["disk0"]}"""],
        ["POST /api/v1/vms/{name}/replica/pause"] = ["""{"reason":"a","seconds":1}""", "{}"],
        ["POST /api/v1/vms/{name}/snapshot"] = ["""{"name":"a","quiesceSeconds":1}""", """{"disks":["disk0"],"to":["/srv/a.qcow2"]}"""],
        ["POST /api/v1/vms/{name}/devices/{device}/copy"] = ["""{"to":"/srv/a.img","bytesPerSecond":1}""", """{"to":"a","cache":"x"}"""],
        ["POST /api/v1/vms/{name}/devices/{device}/commit"] = ["""{"base":"/srv/a.img","delete":true,"bytesPerSecond":1}""", "{}"],
        ["POST /api/v1/vms/{name}/devices/{device}/stream"] = ["""{"base":"/srv/a.img","bytesPerSecond":1}""", "{}"],
        ["PUT /api/v1/vms/{name}/devices/{device}/size"] = ["""{"sizeBytes":1048576}""", "{}"],
        ["POST /api/v1/vms/{name}/disks"] = ["path: d.img\nserial: B2\nreadOnly: true\n", "{path: d.img, queues: 2}"],
        ["POST /api/v1/vms/{name}/nets"] = ["tap: tap1\n", "{tap: tap2, mac: \"52:54:00:12:34:56\"}", "network: rests\n"],
        ["POST /api/v1/vms/{name}/vnodes/{vnode}/rehome"] = ["""{"hostNodes":"0","bytesPerSecond":1000000}"""],
        ["POST /api/v1/vms/{name}/save"] = ["""{"folder":"/nowhere/saved"}"""],
        ["POST /api/v1/vms/{name}/upgrade"] = ["""{"maxDowntimeMilliseconds":50,"timeoutSeconds":60}"""],
        ["POST /api/v1/vms/{name}/migrate"] = ["""{"to":"https://127.0.0.1:1","timeoutSeconds":60}"""],
        ["POST /api/v1/vms/{name}/settle"] = ["""{"where":"here","confirm":"web1"}"""],
        ["POST /api/v1/migrations"] =
        [
            """
            {"id":"00112233445566778899aabbccddeeff","vm":"5cbe0b32-0b3f-4a0e-8d3c-0d3a8ef55e5f","name":"a","spec":"name: a","folder":"",
            "current":"{}","files":["top 1 512 /srv/a.img"],"channels":1,"timeoutSeconds":9}
            """
        ],
        ["PUT /api/v1/replication/{vm}"] =
        [
            """
            {"vm":"5cbe0b32-0b3f-4a0e-8d3c-0d3a8ef55e5f","name":"far1","source":"h",
            "generations":{"current":"6cbe0b32-0b3f-4a0e-8d3c-0d3a8ef55e5f"},"disks":[{"name":"disk0","bytes":1048576}],
            "keep":{"allSeconds":60,"hourly":2}}
            """
        ],
        ["POST /api/v1/replication/{vm}/points"] =
        [
            """
            {"id":"7cbe0b32-0b3f-4a0e-8d3c-0d3a8ef55e5f","parent":"","generation":"6cbe0b32-0b3f-4a0e-8d3c-0d3a8ef55e5f",
            "time":"2026-12-01T12:00:00Z","isLast":false,"spec":"name: far1","disks":[{"name":"disk0","bytes":1048576,"stored":4096,
            "seal":"00000000000000000000000000000000ffffffffffffffffffffffffffffffff",
            "root":"00000000000000000000000000000000ffffffffffffffffffffffffffffffff","why":"it is the first point"}]}
            """
        ],
        ["POST /api/v1/replicas/{name}/test-failover"] = ["""{"point":1,"network":"rests","as":"t1","start":false}""", "{}"],
        ["POST /api/v1/replicas/{name}/failover"] = ["""{"point":1,"networks":["a=b"],"as":"f1","confirm":"far1"}""", "{}"],
        ["POST /api/v1/replicas/{name}/verify"] = ["""{"point":1}""", "{}"],
        ["POST /api/v1/restore"] = ["""{"folder":"/nowhere/saved"}"""],
        ["PUT /api/v1/balancer"] = ["""{"enabled":true,"dryRun":true}""", """{"enabled":false}"""],
        ["PUT /api/v1/log"] = ["""{"level":"error"}"""],
        ["PUT /api/v1/vms/{name}/cpu"] = ["""{"quotaPercent":150,"weight":200}""", "{}"],
        ["POST /api/v1/disks"] = ["""{"name":"a.img","sizeBytes":1048576,"format":"raw","preallocate":false}"""],
        ["POST /api/v1/images"] = ["""{"name":"NAME","path":"FOLDER/d.img","format":"raw"}""", """{"name":"a","path":"FOLDER/d.img"}"""],
        ["POST /api/v1/images/{name}/export"] = ["""{"to":"FOLDER/e.img","format":"qcow2"}"""],
        ["PUT /api/v1/networks/{name}"] = ["""{"ipv6":"fd00:1:2:4::/64"}""", """{"ipv6":"auto"}""", """{"ipv6":"none"}"""],
        ["POST /api/v1/networks"] =
            ["""{"name":"a","subnet":"10.1.2.0/24","isolated":true,"ipv6":"fd00:1:2:3::/64"}""", """{"name":"b"}"""],
        ["POST /api/v1/tokens"] = ["""{"name":"ann","role":"viewer","days":3}"""],
    };

    private static readonly string[] s_nasty =
    [
        "null", "-1", "0", "1e999", "1.5", "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616",
        "NaN", "\"\"", "\"\\ud800\"", "\"\\u0000\"", "\0", "\u2028", "[]", "{}", "[null]",
        "true", "../../x", "/dev/null", "/", "&a", "*a", "<<: *a", "!!binary x", "!x", "|", ">", "? ", "- ", "---\n", "...\n", "#", "\t",
        "%YAML 9.9\n", "16EiB", "1TiB", "0-4294967295", "4096", new string('[', 3000), new string('a', 5000),
        "{a: &a [x,x,x,x,x,x,x,x], b: &b [*a,*a,*a,*a,*a,*a,*a,*a], c: &c [*b,*b,*b,*b,*b,*b,*b,*b], d: [*c,*c,*c,*c,*c,*c,*c,*c]}",
        "&r {r: *r}",
    ];

    [Fact]
    [Trait("Kind", "fuzz")]
    public async Task Every_route_with_a_body_answers_whatever_it_is_sent()
    {
        int inputs = int.TryParse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS"), out int wanted)
            ? Math.Min(wanted, 200_000)
            : 2100;
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(folder => ResourceOracle.Logged(new DaemonOptions(), folder));
        ResourceOracle oracle = ResourceOracle.Begin(daemon);
        using HttpClient http = ApiTests.Raw(daemon);
        http.Timeout = TimeSpan.FromSeconds(30); // a hang is an exception
        await File.WriteAllBytesAsync(Path.Combine(daemon.Folder, "d.img"), new byte[4096]);
        string[] routes = [.. daemon.Host.Routes.SelectMany(s => s.Endpoints).OfType<RouteEndpoint>()
            .Select(r => (Method: r.Metadata.GetMetadata<HttpMethodMetadata>()!.HttpMethods.Single(), Pattern: r.RoutePattern.RawText!))
            .Where(r => OpenApiTable.Find(r.Method, r.Pattern) is { } entry && (entry.Body is not null || entry.IsSpec))
            .Select(r => $"{r.Method} {r.Pattern}")
            .Order(StringComparer.Ordinal)];
        Assert.Equal(s_seeds.Keys.Order(StringComparer.Ordinal), routes);
        Random random = new(inputs);
        Dictionary<string, (int Taken, int Refused)> answers = routes.ToDictionary(r => r, _ => (0, 0), StringComparer.Ordinal);
        for (int i = 0; i < inputs; i++)
        {
            if (i % 250 == 0)
            {
                await TidyAsync(daemon);
            }

            string route = routes[i % routes.Length];
            byte[] body = Body(random, route, daemon.Folder);
            using HttpResponseMessage response = await SendAsync(http, daemon, random, route, body);
            int status = (int)response.StatusCode;
            string text = await response.Content.ReadAsStringAsync();
            Assert.True(text.Length < 200_000, $"input {i}: {route} is answered with {text.Length} characters");
            Assert.True(status is >= 200 and < 500 or 507, $"input {i}: {route} {status} {text}\n{Convert.ToBase64String(body)}");
            if (status >= 400)
            {
                Problem? problem = JsonSerializer.Deserialize(text, RestJson.Default.Problem);
                Assert.True(problem is { Code.Length: > 0 } && problem.Status == status, $"input {i}: {route} {status} {text}");
            }

            (int taken, int refused) = answers[route];
            answers[route] = status < 400 ? (taken + 1, refused) : (taken, refused + 1);
        }

        // Bodies came as far as the daemon's work, and were refused: else this tests nothing. A host with one node moves nothing, and no
        // guest here has an agent; no other host is known (what one says is MigrationTests' matter).
        Assert.All(
            answers,
            a =>
                Assert.True(
                    (a.Value.Taken > 0 || a.Key.EndsWith("rehome", StringComparison.Ordinal)
                        || a.Key.EndsWith("exec", StringComparison.Ordinal)
                        || a.Key.EndsWith("migrate", StringComparison.Ordinal)
                        || a.Key.EndsWith("settle", StringComparison.Ordinal)
                        || a.Key.Contains("/{name}/replica", StringComparison.Ordinal) // nor is a site: ReplicaOperationsTests
                        || a.Key.EndsWith("migrations", StringComparison.Ordinal)
                        || a.Key.Contains("/replicas/", StringComparison.Ordinal) // it has no point that is whole: RecoveryTests
                        || a.Key.EndsWith("restore", StringComparison.Ordinal))
                        && a.Value.Refused > 0,
                    $"{a.Key}: {a.Value}"));
        await oracle.EndAsync(auditBytes: inputs * 2000L, logBytes: inputs * 4000L);
    }

    private static async Task<HttpResponseMessage> SendAsync(
        HttpClient http, DaemonFixture daemon, Random random, string route, byte[] body)
    {
        string[] parts = route.Split(' ');
        bool running = random.Next(3) > 0;
        string path = parts[1]
            .Replace("/replicas/{name}", "/replicas/far1", StringComparison.Ordinal)
            .Replace("{vm}", "5cbe0b32-0b3f-4a0e-8d3c-0d3a8ef55e5f", StringComparison.Ordinal)
            .Replace("{name}", running ? "runs" : "rests", StringComparison.Ordinal)
            .Replace("{device}", random.Next(4) > 0 ? "disk0" : "net9", StringComparison.Ordinal)
            .Replace("{vnode}", random.Next(8) > 0 ? "0" : "7", StringComparison.Ordinal);
        using HttpRequestMessage request = new(new HttpMethod(parts[0]), path + Query(daemon, route, running));
        request.Content = new ByteArrayContent(body);
        request.Content.Headers.ContentType = new MediaTypeHeaderValue(random.Next(2) == 0 ? "application/yaml" : "application/json");
        return await http.SendAsync(request);
    }

    /// <summary>Of what the bodies come to, whatever they ask for: only what the route takes.</summary>
    private static string Query(DaemonFixture daemon, string route, bool running)
    {
        string[] known = [.. daemon.Host.Routes.SelectMany(s => s.Endpoints)
            .OfType<RouteEndpoint>()
            .Single(r => route == $"{r.Metadata.GetMetadata<HttpMethodMetadata>()!.HttpMethods.Single()} {r.RoutePattern.RawText}")
            .Metadata.GetOrderedMetadata<QueryParameter>().Select(p => p.Name)];
        string[] given =
        [
            .. known.Contains("folder") ? ["folder=" + Uri.EscapeDataString(daemon.Folder)] : Array.Empty<string>(),
            .. known.Contains("timeout") ? ["timeout=0"] : Array.Empty<string>(),
            .. known.Contains("persistent") && running ? ["persistent=false"] : Array.Empty<string>(),
        ];
        return given.Length > 0 ? "?" + string.Join('&', given) : "";
    }

    private static byte[] Body(Random random, string route, string folder)
    {
        string[] seeds = random.Next(12) > 0 ? s_seeds[route] : [.. s_seeds.Values.SelectMany(s => s)];
        string seed = seeds[random.Next(seeds.Length)].Replace(
            "NAME", random.Next(3) == 0 ? $"n{random.Next(1000)}" : "rests", StringComparison.Ordinal)
            .Replace("FOLDER", folder, StringComparison.Ordinal);
        byte[] bytes = Encoding.UTF8.GetBytes(seed);
        switch (random.Next(7))
        {
            case 0:
                return bytes;
            case 1:
                byte[] noise = new byte[random.Next(300)];
                random.NextBytes(noise);
                return noise;
            case 2:
                for (int flips = random.Next(1, 6); flips > 0; flips--)
                {
                    bytes[random.Next(bytes.Length)] = (byte)random.Next(256);
                }

                return bytes;
            case 3:
                return bytes[..random.Next(bytes.Length)];
            case 4: // a piece twice
                int from = random.Next(bytes.Length), to = random.Next(from, bytes.Length);
                return [.. bytes[..to], .. bytes[from..]];
            default:
                for (int changes = random.Next(1, 4); changes > 0; changes--)
                {
                    MatchCollection words = Word().Matches(seed);
                    Match word = words[random.Next(words.Count)];
                    seed = seed[..word.Index] + s_nasty[random.Next(s_nasty.Length)] + seed[(word.Index + word.Length)..];
                }

                return Encoding.UTF8.GetBytes(seed);
        }
    }

    /// <summary>Two VMs, one of which runs, and nothing else of what the bodies made.</summary>
    private static async Task TidyAsync(DaemonFixture daemon)
    {
        foreach (JobInfo job in (await daemon.Client.JobsAsync(s_none)).Jobs.Where(j => j.State == JobState.Running))
        {
            await daemon.Client.CancelJobAsync(job.Id, s_none);
        }

        foreach (VmInfo vm in (await daemon.Client.ListAsync(s_none)).Vms)
        {
            if (vm.State == VmState.Running)
            {
                await daemon.Client.DoAsync(vm.Name, "stop", s_none);
            }

            await daemon.Client.DeleteAsync(vm.Name, s_none);
        }

        foreach (TokenInfo token in (await daemon.Client.TokensAsync(s_none)).Tokens)
        {
            await daemon.Client.DeleteTokenAsync(token.Id, s_none);
        }

        foreach (DiskInfo disk in (await daemon.Client.DisksAsync(s_none)).Disks)
        {
            await daemon.Client.DeleteDiskAsync(disk.Name, s_none);
        }

        foreach (ImageInfo image in (await daemon.Client.ImagesAsync(s_none)).Images.Where(i => i.Name != "rests"))
        {
            await daemon.Client.DeleteImageAsync(image.Name, s_none);
        }

        if ((await daemon.Client.ImagesAsync(s_none)).Images.Count == 0)
        {
            await daemon.EndAsync(await daemon.Client.ImportImageAsync(
                new ImageRequest("rests", Path.Combine(daemon.Folder, "d.img")), s_none));
        }

        foreach (NetworkInfo network in (await daemon.Client.NetworksAsync(s_none)).Networks.Where(n => n.Name != "rests"))
        {
            await daemon.Client.DeleteNetworkAsync(network.Name, s_none);
        }

        if ((await daemon.Client.NetworksAsync(s_none)).Networks.Count == 0)
        {
            await daemon.Client.CreateNetworkAsync(new NetworkRequest("rests"), s_none);
        }

        File.Delete(Path.Combine(daemon.Folder, "e.img"));
        foreach (string name in new[] { "runs", "rests" })
        {
            await daemon.Client.CreateAsync(Spec.Replace("NAME", name, StringComparison.Ordinal), daemon.Folder, s_none);
        }

        await daemon.Client.DoAsync("runs", "start", s_none);
    }

    [GeneratedRegex("[A-Za-z0-9.]+|[^A-Za-z0-9. ]")]
    private static partial Regex Word();
}
