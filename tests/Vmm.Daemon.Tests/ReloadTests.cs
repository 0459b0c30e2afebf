using System.Text.Json;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Balancer;
using Vmm.Daemon.Logging;

namespace Vmm.Daemon.Tests;

/// <summary>What changes while the daemon runs: over REST, and when it reads its settings again.</summary>
public sealed class ReloadTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Fact]
    public async Task The_log_level_changes_over_rest_and_the_log_says_so_at_the_more_talkative_level()
    {
        string file = "";
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(folder => WithLog(folder, out file));
        Assert.Equal(new LogSettings("error"), await daemon.Client.LogAsync(s_none));
        await daemon.CreateAsync("web1");
        Assert.DoesNotContain(await LinesAsync(file), line => line.Contains("/api/v1/vms", StringComparison.Ordinal));
        Assert.Equal(new LogSettings("information"), await daemon.Client.SetLogAsync(new LogSettings("information"), s_none));
        await daemon.CreateAsync("web2");
        Assert.Equal(new LogSettings("warning"), await daemon.Client.SetLogAsync(new LogSettings("warning"), s_none));
        await daemon.CreateAsync("web3");
        await daemon.Client.SetLogAsync(new LogSettings("debug"), s_none);
        await daemon.Client.HostAsync(s_none);
        await daemon.Client.SetLogAsync(new LogSettings("warning"), s_none);
        await daemon.Client.ListAsync(s_none);
        string[] lines = await LinesAsync(file);
        Assert.Equal(
            ["/api/v1/host"],
            lines.Select(Parse).Where(l => l.TryGetProperty("Milliseconds", out _)).Select(l => l.GetProperty("Path").GetString()));
        Assert.Equal(
            ["information error", "warning information", "debug warning", "warning debug"],
            lines.Select(Parse)
                .Where(l => l.TryGetProperty("Level", out _))
                .Select(l => $"{l.GetProperty("Level")} {l.GetProperty("Before")}"));
        // that of web2
        Assert.Single(
            lines, line => line.Contains("POST", StringComparison.Ordinal) && line.Contains("/api/v1/vms", StringComparison.Ordinal));
        Assert.Equal(
            ["information (was error)", "warning (was information)", "debug (was warning)", "warning (was debug)"],
            daemon.Host.Vms.Events.Of("").Where(e => e.Kind is "log-level").Select(e => e.Message));
        Assert.Contains(
            "PUT /api/v1/log",
            await File.ReadAllTextAsync(Path.Combine(daemon.Options.StateFolder, "audit.log")),
            StringComparison.Ordinal);

        static JsonElement Parse(string line) => JsonDocument.Parse(line).RootElement;
    }

    [Theory]
    [InlineData("{\"level\": \"loud\"}")]
    [InlineData("{\"level\": null}")]
    [InlineData("{}")]
    [InlineData("\"debug\"")]
    public async Task A_level_that_is_none_is_refused(string body)
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        using HttpClient http = ApiTests.Raw(daemon);
        using HttpResponseMessage answer = await http.PutAsync(
            "/api/v1/log", new StringContent(body, new System.Net.Http.Headers.MediaTypeHeaderValue("application/json")));
        Assert.Equal(System.Net.HttpStatusCode.BadRequest, answer.StatusCode);
    }

    [Fact]
    public async Task A_viewer_sees_the_level_and_only_an_admin_changes_it()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        NewToken token = await daemon.Client.CreateTokenAsync(new TokenWish("eve", "operator"), s_none);
        using HttpClient http = ApiTests.Raw(daemon);
        http.DefaultRequestHeaders.Authorization = new("Bearer", token.Token);
        Assert.Equal(System.Net.HttpStatusCode.OK, (await http.GetAsync("/api/v1/log")).StatusCode);
        Assert.Equal(System.Net.HttpStatusCode.Forbidden, (await http.PutAsync("/api/v1/log",
            new StringContent("{\"level\": \"debug\"}", new System.Net.Http.Headers.MediaTypeHeaderValue("application/json")))).StatusCode);
    }

    [Fact]
    public async Task Settings_read_again_change_level_and_balancer_and_nothing_when_they_are_not_sound()
    {
        string file = "";
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(folder => WithLog(folder, out file));
        daemon.Host.Reload(daemon.Options with
        {
            Log = daemon.Options.Log with { Level = LogLevel.Information },
            Balancer = new BalancerOptions(true, true, BalancerOptions.Off.Interval)
        }, "");
        Assert.Equal("information", (await daemon.Client.LogAsync(s_none)).Level);
        Assert.True((await daemon.Client.BalancerAsync(s_none)) is { Enabled: true, DryRun: true });
        Assert.EndsWith("as the settings say", await LastAsync(), StringComparison.Ordinal);
        daemon.Host.Reload(daemon.Options with { PoolSize = 7, Log = daemon.Options.Log with { Level = LogLevel.Information } }, "");
        Assert.False((await daemon.Client.BalancerAsync(s_none)).Enabled);
        Assert.EndsWith("what else has changed waits for the daemon's next start", await LastAsync(), StringComparison.Ordinal);
        daemon.Host.Reload(DaemonConfig.Apply(daemon.Options, "vmmd.yaml", "balancer: perhaps\n", out string problem), problem);
        Assert.Contains("vmmd.yaml:1: balancer: expected on, off or dry-run", await LastAsync(), StringComparison.Ordinal);
        Assert.Equal("information", (await daemon.Client.LogAsync(s_none)).Level);

        async Task<string> LastAsync() =>
            JsonDocument.Parse((await LinesAsync(file)).Last(l => l.Contains("SIGHUP", StringComparison.Ordinal))).RootElement
                .GetProperty("@m")
                .GetString()!
                .Replace("\"", "", StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_log_file_that_was_renamed_is_made_anew_and_one_that_cannot_be_goes_on()
    {
        string file = "";
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(folder => WithLog(folder, out file) with { });
        await daemon.Client.SetLogAsync(new LogSettings("information"), s_none);
        DaemonOptions same = daemon.Options with { Log = daemon.Options.Log with { Level = LogLevel.Information } };
        File.Move(file, file + ".1");
        await daemon.CreateAsync("before");
        daemon.Host.Reload(same, "");
        await daemon.CreateAsync("after");
        Assert.Contains(await LinesAsync(file), line => line.Contains("POST", StringComparison.Ordinal));
        string[] old = await LinesAsync(file + ".1");
        Assert.Single(old, line => line.Contains("POST", StringComparison.Ordinal));
        File.Move(file, file + ".2");
        Directory.CreateDirectory(file);
        daemon.Host.Reload(same, "");
        await daemon.CreateAsync("onward");
        Assert.Contains(await LinesAsync(file + ".2"), line => line.Contains("cannot be opened anew", StringComparison.Ordinal));
        Assert.Equal(2, (await LinesAsync(file + ".2")).Count(line => line.Contains("POST", StringComparison.Ordinal)));
    }

    private static DaemonOptions WithLog(string folder, out string file)
    {
        file = Path.Combine(folder, "vmmd.log");
        return new DaemonOptions { Log = new LogOptions { Format = LogFormat.Json, File = file, Level = LogLevel.Error } };
    }

    private static async Task<string[]> LinesAsync(string path)
    {
        await using FileStream file = new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        using StreamReader reader = new(file);
        return (await reader.ReadToEndAsync()).Split('\n', StringSplitOptions.RemoveEmptyEntries);
    }
}
