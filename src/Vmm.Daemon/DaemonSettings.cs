using System.Globalization;
using System.Net;
using Microsoft.Extensions.Logging;
using Vmm.Daemon.Logging;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Daemon;

/// <summary>
/// The settings that are a text: each has the same name on the command line (<c>--client-ca</c>) and in the configuration file
/// (<c>clientCa</c>).
/// </summary>
internal static class DaemonSettings
{
    private const int MostConnections = 100_000;

    private static readonly Dictionary<string, Setting> s_byName = new(StringComparer.Ordinal)
    {
        ["state"] = OfPath((options, path) => options with { StateFolder = path }),
        ["run"] = OfPath((options, path) => options with { RunFolder = path }),
        ["socket"] = OfPath((options, path) => options with { Socket = path }),
        ["worker"] = OfPath((options, path) => options with { WorkerProgram = path }),
        ["pool"] = OfNumber(0, 64, "0 to 64", (options, workers) => options with { PoolSize = workers }),
        ["startTimeout"] = OfNumber(
            10, 3600, "10 to 3600 seconds", (options, seconds) => options with { StartTimeout = TimeSpan.FromSeconds(seconds) }),
        ["confinement"] = OfWord(
            "require (a VM whose worker is not fully confined does not start) or best", ["require", "best"],
            (options, word) => options with { RequireConfinement = word is "require" }),

        ["storage"] = OfPath((options, path) => options with { Storage = [.. options.Storage ?? [], path] }),
        ["blockDevices"] = OfPath((options, path) => options with { BlockDevices = [.. options.BlockDevices, path] }),
        ["nbdServers"] = new("HOST:PORT or the whole path of a unix socket",
            (options, server) => IsServer(server) ? options with { NbdServers = [.. options.NbdServers, server] } : null),
        ["rbdPools"] = new("rbd:POOL[/NAMESPACE][?conf=FILE&user=NAME&keyring=FILE] with whole paths",
            (options, pool) => RbdUri.TryReadPool(pool, out RbdSpec read, out _)
                ? options with { RbdPools = [.. options.RbdPools, RbdUri.PoolOf(read)] }
                : null),
        ["disks"] = OfPath((options, path) => options with { Disks = path }),
        ["replicas"] = OfPath((options, path) => options with { Replicas = path }),

        ["listen"] = new("https://ADDRESS:PORT with a numeric address, e.g. https://0.0.0.0:8443",
            (options, value) => HttpsEndPoint(value) is { } at ? options with { Listen = at } : null),
        ["certificate"] = OfPath((options, path) => options with { CertificateFile = path }),
        ["key"] = OfPath((options, path) => options with { KeyFile = path }),
        ["clientCa"] = OfPath((options, path) => options with { ClientAuthorityFile = path }),
        ["connections"] = OfNumber(
            1, MostConnections, $"1 to {MostConnections}", (options, number) => options with { Connections = number }),
        ["peerConnections"] = OfNumber(
            1, MostConnections, $"1 to {MostConnections}", (options, number) => options with { PeerConnections = number }),
        ["operators"] = new("a group", (options, group) => options with { OperatorsGroup = group }),
        ["viewers"] = new("a group", (options, group) => options with { ViewersGroup = group }),

        ["balancer"] = OfWord("on, off or dry-run", ["on", "off", "dry-run"], (options, word) => options with
        {
            Balancer = options.Balancer with { Enabled = word is not "off", DryRun = word is "dry-run" }
        }),
        ["balancerInterval"] = OfNumber(1, 3600, "1 to 3600 seconds", (options, seconds) => options with
        {
            Balancer = options.Balancer with { Interval = TimeSpan.FromSeconds(seconds) }
        }),

        ["memoryOvercommit"] = new("a ratio from 0.1 to 100, such as 1.5", (options, value) =>
            double.TryParse(value, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double ratio)
                && ratio is >= 0.1 and <= 100
                    ? options with { Overcommit = ratio }
                    : null),

        ["memoryPressure"] = OfWord("on or off", ["on", "off"], (options, word) => options with
        {
            Pressure = options.Pressure with { Enabled = word is "on" }
        }),
        ["memoryReserve"] = new("a size such as 2GiB, at least 1MiB", (options, value) =>
            SpecText.TryParseSize(value, out ByteSize size) && size >= ByteSize.MiB(1) && size <= ByteSize.GiB(1 << 20)
                ? options with { Pressure = options.Pressure with { Reserve = size } }
                : null),

        ["logLevel"] = new(LogOptions.Levels, (options, value) =>
            LogOptions.TryLevel(value, out LogLevel level) ? options with { Log = options.Log with { Level = level } } : null),
        ["logFormat"] = OfWord("text or json", ["text", "json"], (options, word) => options with
        {
            Log = options.Log with { Format = word is "json" ? LogFormat.Json : LogFormat.Text }
        }),
        ["logFile"] = OfPath((options, path) => options with { Log = options.Log with { File = path } }),
    };

    /// <summary>Changes one setting.</summary>
    /// <returns>Null for an unknown one (no problem) or a value that makes no sense (a problem).</returns>
    internal static DaemonOptions? Change(DaemonOptions options, string name, string value, out string problem)
    {
        problem = "";
        if (!s_byName.TryGetValue(name, out Setting? setting))
        {
            return null;
        }

        DaemonOptions? changed = setting.Change(options, value);
        problem = changed is null ? "expected " + setting.Expected : "";
        return changed;
    }

    private static bool IsServer(string server)
    {
        int colon = server.LastIndexOf(':');
        return server.StartsWith('/') || (colon > 0 && Port() is > 0 and <= 65535);

        int Port() => int.TryParse(server[(colon + 1)..], NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : 0;
    }

    private static Setting OfPath(Func<DaemonOptions, string, DaemonOptions> change) =>
        new("a path", (options, value) => value.Contains('\0') ? null : change(options, Path.GetFullPath(value)));

    private static Setting OfNumber(int least, int most, string expected, Func<DaemonOptions, int, DaemonOptions> change) =>
        new(expected, (options, value) =>
            int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number >= least && number <= most
                ? change(options, number)
                : null);

    private static Setting OfWord(string expected, string[] words, Func<DaemonOptions, string, DaemonOptions> change) =>
        new(expected, (options, value) => words.Contains(value, StringComparer.Ordinal) ? change(options, value) : null);

    private static IPEndPoint? HttpsEndPoint(string url)
    {
        const string Scheme = "https://";
        return url.StartsWith(Scheme, StringComparison.Ordinal)
            && IPEndPoint.TryParse(url[Scheme.Length..].TrimEnd('/'), out IPEndPoint? at) && at.Port > 0
                ? at
                : null;
    }

    /// <summary>One setting.</summary>
    /// <param name="Expected">What its values are, for who gives another.</param>
    /// <param name="Change">The options with it; null for a value that makes no sense.</param>
    private sealed record Setting(string Expected, Func<DaemonOptions, string, DaemonOptions?> Change);
}
