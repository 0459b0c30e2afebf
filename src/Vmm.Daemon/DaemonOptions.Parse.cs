using System.Globalization;
using System.Net;

namespace Vmm.Daemon;

/// <content>Options from the command line; each is a key of the configuration file too.</content>
public sealed partial record DaemonOptions
{
    /// <summary>The configuration file that is read when it is there and no other one is named.</summary>
    public const string DefaultConfig = "/etc/vmm/vmmd.yaml";

    /// <summary>Every option with a value: its key in the file (the flag is <c>--</c> and the same with dashes) and what it does.</summary>
    internal static readonly IReadOnlyDictionary<string, Func<DaemonOptions, string, DaemonOptions>> Keys = new Dictionary<string, Func<DaemonOptions, string, DaemonOptions>>(StringComparer.Ordinal)
    {
        ["state"] = (o, v) => o with { StateFolder = Path.GetFullPath(v) },
        ["run"] = (o, v) => o with { RunFolder = Path.GetFullPath(v) },
        ["socket"] = (o, v) => o with { Socket = Path.GetFullPath(v) },
        ["worker"] = (o, v) => o with { WorkerProgram = Path.GetFullPath(v) },
        ["disks"] = (o, v) => o with { Disks = Path.GetFullPath(v) },
        ["pool"] = (o, v) => o with { PoolSize = int.TryParse(v, NumberStyles.None, CultureInfo.InvariantCulture, out int n) && n <= 64 ? n : throw new FormatException("expected 0 to 64") },
        ["listen"] = (o, v) => o with { Listen = EndPointOf(v) is null ? throw new FormatException("expected https://ADDRESS:PORT, an IP address") : v },
        ["certificate"] = (o, v) => o with { Certificate = Path.GetFullPath(v) },
        ["key"] = (o, v) => o with { Key = Path.GetFullPath(v) },
        ["clientCa"] = (o, v) => o with { ClientAuthority = Path.GetFullPath(v) },
        ["operatorGroup"] = (o, v) => o with { OperatorGroup = string.Equals(v, "none", StringComparison.Ordinal) ? "" : v },
    };

    /// <summary>Reads the command line and the configuration file behind it; a flag counts more than the file.</summary>
    /// <returns>The options, or null with what is wrong.</returns>
    public static DaemonOptions? Parse(string[] args, out string problem)
    {
        problem = "";
        try
        {
            int named = Array.IndexOf(args, "--config");
            string? config = named < 0 ? (File.Exists(DefaultConfig) ? DefaultConfig : null) : named + 1 < args.Length ? args[named + 1] : throw new FormatException("--config needs a value");
            DaemonOptions options = config is null ? new() : ConfigFile.Read(File.ReadAllText(config), config);
            for (int i = 0; i < args.Length; i++)
            {
                if (string.Equals(args[i], "--listen-fds", StringComparison.Ordinal))
                {
                    options = options with { ListenFds = true };
                    continue;
                }

                string key = Keys.Keys.FirstOrDefault(k => string.Equals(Flag(k), args[i], StringComparison.Ordinal)) ?? (string.Equals(args[i], "--config", StringComparison.Ordinal) ? "" : throw new FormatException(
                    $"unknown option {args[i]}; known: --config FILE, --listen-fds, {string.Join(", ", Keys.Keys.Select(Flag))}"));
                string value = i + 1 < args.Length && args[i + 1].Length > 0 ? args[++i] : throw new FormatException($"{args[i]} needs a value");
                try
                {
                    options = key.Length == 0 ? options : Keys[key](options, value);
                }
                catch (FormatException e)
                {
                    throw new FormatException($"{args[i - 1]} {value}: {e.Message}", e);
                }
            }

            return options.Listen is not null && (options.Certificate is null || options.Key is null)
                ? throw new FormatException("listen (--listen) needs certificate and key (--certificate, --key)")
                : options;
        }
        catch (Exception e) when (e is FormatException or IOException or UnauthorizedAccessException)
        {
            problem = e.Message;
            return null;
        }
    }

    /// <summary>The address of a TLS endpoint; null when it is none.</summary>
    internal static IPEndPoint? EndPointOf(string text) =>
        Uri.TryCreate(text, UriKind.Absolute, out Uri? uri) && string.Equals(uri.Scheme, Uri.UriSchemeHttps, StringComparison.Ordinal) && uri.PathAndQuery is "/" && uri.UserInfo.Length == 0 && IPAddress.TryParse(uri.DnsSafeHost, out IPAddress? address)
            ? new IPEndPoint(address, uri.Port)
            : null;

    private static string Flag(string key) => "--" + string.Concat(key.Select(c => char.IsAsciiLetterUpper(c) ? "-" + char.ToLowerInvariant(c) : c.ToString()));
}
