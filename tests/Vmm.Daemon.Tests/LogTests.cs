using System.Globalization;
using System.Text.Json;
using Microsoft.Extensions.Logging;
using Serilog.Core;
using Serilog.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Logging;

namespace Vmm.Daemon.Tests;

/// <summary>The daemon's log: what a line has, where it goes, and what cannot be smuggled into it.</summary>
public sealed class LogTests
{
    [Fact]
    public void A_json_line_is_an_object_with_every_property()
    {
        string line = Assert.Single(Logged(new LogOptions { Format = LogFormat.Json }, log => DaemonLog.Adopted(log, "web1", 4711)));
        JsonElement read = JsonDocument.Parse(line).RootElement;
        Assert.Equal("web1", read.GetProperty("Name").GetString());
        Assert.Equal(4711, read.GetProperty("ProcessId").GetInt32());
        Assert.Equal("Vmm.Daemon.DaemonHost", read.GetProperty("SourceContext").GetString());
        Assert.Contains("web1", read.GetProperty("@m").GetString(), StringComparison.Ordinal);
        Assert.True(DateTimeOffset.TryParse(read.GetProperty("@t").GetString(), CultureInfo.InvariantCulture, out _));
    }

    [Fact]
    public void A_text_line_is_one_line_whatever_a_client_puts_into_it()
    {
        string[] lines = Logged(new LogOptions(), log =>
            DaemonLog.Change(log, "eve", "PUT", "/api\n2026-01-01 00:00:00.000 info root: all is well\r\u2028x\u001b[2J", 404, "1-2"));
        string line = Assert.Single(lines);
        Assert.Matches(@"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} info DaemonHost: eve PUT /api ", line);
        Assert.DoesNotContain(line, char.IsControl);
    }

    [Fact]
    public void An_exception_is_indented_lines_behind_its_event()
    {
        string[] lines = Logged(
            new LogOptions(), log => DaemonLog.Fault(log, new InvalidOperationException("one\ntwo"), "GET", "/", "1-1"));
        Assert.True(lines.Length >= 3);
        Assert.EndsWith("DaemonHost: GET / failed (1-1)", lines[0], StringComparison.Ordinal);
        Assert.All(lines.Skip(1), line => Assert.StartsWith("    ", line, StringComparison.Ordinal));
    }

    [Theory]
    [InlineData(LogLevel.Information, 2)]
    [InlineData(LogLevel.Warning, 1)]
    [InlineData(LogLevel.Error, 0)]
    public void What_is_less_severe_than_the_level_is_left_out(LogLevel level, int expected) =>
        Assert.Equal(expected, Logged(new LogOptions { Level = level }, log =>
        {
            DaemonLog.Adopted(log, "a", 1);
            DaemonLog.Lost(log, "a");
        }).Length);

    [Fact]
    public async Task What_is_logged_for_a_request_tells_its_number_and_who_sent_it()
    {
        string file = "";
        await using (DaemonFixture daemon = await DaemonFixture.StartAsync(folder =>
        {
            file = Path.Combine(folder, "vmmd.log");
            return new DaemonOptions { Log = new LogOptions { Format = LogFormat.Json, File = file } };
        }))
        {
            _ = await DaemonFixture.RefusedAsync(() => daemon.Client.DoAsync("none", "start", CancellationToken.None));
            string line = Assert.Single(await ReadSharedAsync(file), l => l.Contains("/api/v1/vms/none/start", StringComparison.Ordinal));
            JsonElement read = JsonDocument.Parse(line).RootElement;
            Assert.Equal("POST", read.GetProperty("Method").GetString());
            Assert.Matches("^[0-9]+-[0-9]+$", read.GetProperty("Request").GetString());
            Assert.StartsWith("uid=", read.GetProperty("Who").GetString(), StringComparison.Ordinal);
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead, File.GetUnixFileMode(file));
        }
    }

    [Fact]
    public async Task No_token_is_in_the_log_or_the_audit_log_at_any_level()
    {
        string file = "";
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(folder =>
        {
            file = Path.Combine(folder, "vmmd.log");
            return new DaemonOptions { Log = new LogOptions { Format = LogFormat.Json, File = file, Level = LogLevel.Debug } };
        });
        NewToken token = await daemon.Client.CreateTokenAsync(new TokenWish("ann", "viewer"), CancellationToken.None);
        using HttpClient http = ApiTests.Raw(daemon);
        foreach (string text in new[] { token.Token, token.Token + "x" })
        {
            using HttpRequestMessage request = new(HttpMethod.Post, "/api/v1/vms/none/start");
            request.Headers.TryAddWithoutValidation("Authorization", "Bearer " + text);
            Assert.Equal(
                text == token.Token ? System.Net.HttpStatusCode.Forbidden : System.Net.HttpStatusCode.Unauthorized,
                (await http.SendAsync(request)).StatusCode);
        }

        string[] files = [.. Directory.GetFiles(daemon.Folder, "*.log", SearchOption.AllDirectories)];
        Assert.True(files.Length >= 2, string.Join(' ', files));
        string logged = string.Join('\n', (await Task.WhenAll(files.Select(ReadSharedAsync))).SelectMany(l => l));
        Assert.Contains("token:ann", logged, StringComparison.Ordinal);
        Assert.DoesNotContain(token.Token["vmm_".Length..], logged, StringComparison.OrdinalIgnoreCase);
    }

    [Fact]
    public async Task A_file_that_cannot_be_written_ends_the_start_with_its_name()
    {
        Exception error = await Assert.ThrowsAnyAsync<Exception>(() => DaemonFixture.StartAsync(
            folder => new DaemonOptions { Log = new LogOptions { File = Path.Combine(folder, "missing", "vmmd.log") } }));
        Assert.True(error is IOException or UnauthorizedAccessException, error.ToString());
        Assert.Contains("missing/vmmd.log", error.Message, StringComparison.Ordinal);
    }

    /// <summary>While the daemon writes it.</summary>
    private static async Task<string[]> ReadSharedAsync(string path)
    {
        await using FileStream file = new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        using StreamReader reader = new(file);
        return (await reader.ReadToEndAsync()).Split('\n');
    }

    private static string[] Logged(LogOptions options, Action<Microsoft.Extensions.Logging.ILogger> act)
    {
        StringWriter output = new();
        using (Logger logger = LogSetup.Create(options, output))
        using (SerilogLoggerFactory factory = new(logger))
        {
            act(factory.CreateLogger<DaemonHost>());
        }

        return output.ToString().Split('\n', StringSplitOptions.RemoveEmptyEntries);
    }
}
