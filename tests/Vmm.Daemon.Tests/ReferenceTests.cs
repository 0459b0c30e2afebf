using System.Text.RegularExpressions;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Control;
using Vmm.Testing;

namespace Vmm.Daemon.Tests;

/// <summary>docs/rest.md against the daemon: every route and every error code is there, and none that is not.</summary>
public sealed partial class ReferenceTests
{
    private static readonly string s_text = File.ReadAllText(Path.Combine(Tree.Root, "docs", "rest.md"));

    [Fact]
    public async Task Every_route_is_in_the_reference_and_none_that_is_not_served()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        HashSet<string> served = [.. daemon.Host.Routes.SelectMany(s => s.Endpoints)
            .OfType<RouteEndpoint>()
            .Select(r => $"{r.Metadata.GetMetadata<HttpMethodMetadata>()!.HttpMethods.Single()} {r.RoutePattern.RawText}")];
        HashSet<string> written = [.. Requests(served)];
        Assert.Equal(served.Order(StringComparer.Ordinal), written.Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Every_code_that_the_daemon_gives_is_in_the_table_of_errors()
    {
        string table = s_text[s_text.IndexOf("| status | code |", StringComparison.Ordinal)..];
        HashSet<string> written = [.. Code().Matches(table).Select(m => m.Groups[1].Value)];
        IEnumerable<string> given = new[] { "Vmm.Daemon", "Vmm.Worker" }
            .SelectMany(p => Directory.GetFiles(Path.Combine(Tree.Root, "src", p), "*.cs", SearchOption.AllDirectories))
            .Where(f => !f.Contains("/obj/", StringComparison.Ordinal))
            .SelectMany(f => Given().Matches(File.ReadAllText(f))).Select(m => m.Groups[1].Value)
            .Concat(typeof(ControlCodes).GetFields().Select(code => (string)code.GetRawConstantValue()!)).Distinct(StringComparer.Ordinal);
        Assert.True(given.Count() > 40);
        Assert.Empty(given.Except(written).Order(StringComparer.Ordinal));
    }

    /// <summary>
    /// The requests of the first cells: "GET /a", "`PUT`" (the same path), "…/b" (below the path before, or in its place).
    /// </summary>
    private static IEnumerable<string> Requests(HashSet<string> served)
    {
        bool table = false;
        foreach (string line in s_text.Split('\n'))
        {
            table = line.StartsWith("| request |", StringComparison.Ordinal) || (table && line.StartsWith('|'));
            if (!table || line.StartsWith("| request |", StringComparison.Ordinal) || line.StartsWith("|--", StringComparison.Ordinal))
            {
                continue;
            }

            string method = "", path = "";
            foreach (Match span in Code().Matches(Cell().Match(line).Value))
            {
                string[] words = span.Groups[1].Value.Replace(@"\|", "|", StringComparison.Ordinal).Split(' ');
                (method, string written) = words is [var only]
                    ? only.All(char.IsAsciiLetterUpper) ? (only, path) : (method, only)
                    : (words[0], words[1]);
                written = written.Split('?')[0];
                path = !written.StartsWith('…') ? written
                    : new[] { "/api/v1" + written[1..], path + written[1..], path[..path.LastIndexOf('/')] + written[1..] }.FirstOrDefault(
                        p => served.Contains($"{method} {p}"), written);
                int bar = path.IndexOf('|', StringComparison.Ordinal);
                int open = bar < 0 ? -1 : path.LastIndexOf('{', bar);
                foreach (string word in bar < 0 ? [""] : path[(open + 1)..path.IndexOf('}', bar)].Split('|'))
                {
                    yield return $"{method} {(bar < 0 ? path : path[..open] + word)}";
                }
            }
        }
    }

    [GeneratedRegex("`([^`]+)`")]
    private static partial Regex Code();

    [GeneratedRegex(@"^\| .*?(?<!\\)\|")]
    private static partial Regex Cell();

    [GeneratedRegex(
        @"(?:new (?:ApiException|Problem)\(\d+, |new (?:WorkerException|RequestException)\(|Fail\([a-z0-9.]+, |"
        + @"HotplugProblem\.\w+ => |AddFile\([^;]*?)""([a-z]+(?:-[a-z]+)*)""")]
    private static partial Regex Given();
}
