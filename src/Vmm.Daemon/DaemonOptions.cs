using Vmm.Contracts.Rest;
using Vmm.Daemon.Api;

namespace Vmm.Daemon;

/// <summary>How the daemon was told to run.</summary>
public sealed record DaemonOptions
{
    /// <summary>Largest request body, bytes: a spec is text of a few kilobytes.</summary>
    public const long MaxBodyBytes = 1 << 20;

    /// <summary>The version of this program.</summary>
    public static string Version => typeof(DaemonOptions).Assembly.GetName().Version?.ToString(3) ?? "0";

    /// <summary>Where the inventory lives.</summary>
    public string StateFolder { get; init; } = "/var/lib/vmm";

    /// <summary>Where sockets live, the daemon's and the workers'.</summary>
    public string RunFolder { get; init; } = "/run/vmm";

    /// <summary>The REST socket; null is <c>vmmd.sock</c> in the run folder.</summary>
    public string? Socket { get; init; }

    /// <summary>The worker program; null is the one beside this program.</summary>
    public string? WorkerProgram { get; init; }

    /// <summary>The REST socket's path.</summary>
    public string SocketPath => Socket ?? (string.Equals(RunFolder, "/run/vmm", StringComparison.Ordinal) ? VmmClient.DefaultSocket : Path.Combine(RunFolder, "vmmd.sock"));

    /// <summary>Root and the daemon's own user may do everything, others nothing.</summary>
    public bool Allows(Peer peer) => peer.UserId == 0 || peer.UserId == OwnUser;

    private static int OwnUser { get; } = ReadOwnUser();

    /// <summary>Reads the command line: <c>--state DIR --run DIR --socket PATH --worker PATH</c>.</summary>
    /// <returns>The options, or null with what is wrong.</returns>
    public static DaemonOptions? Parse(string[] args, out string problem)
    {
        problem = "";
        DaemonOptions options = new();
        for (int i = 0; i < args.Length; i += 2)
        {
            if (i + 1 == args.Length || args[i + 1].Length == 0)
            {
                problem = $"{args[i]} needs a value";
                return null;
            }

            string value = Path.GetFullPath(args[i + 1]);
            DaemonOptions? next = args[i] switch
            {
                "--state" => options with { StateFolder = value },
                "--run" => options with { RunFolder = value },
                "--socket" => options with { Socket = value },
                "--worker" => options with { WorkerProgram = value },
                _ => null,
            };
            if (next is null)
            {
                problem = $"unknown option {args[i]}; known: --state DIR, --run DIR, --socket PATH, --worker PATH";
                return null;
            }

            options = next;
        }

        return options;
    }

    /// <summary>The effective user, from /proc: there is no managed call for it.</summary>
    private static int ReadOwnUser()
    {
        foreach (string line in File.ReadLines("/proc/self/status"))
        {
            if (line.StartsWith("Uid:", StringComparison.Ordinal))
            {
                return int.Parse(line.Split('\t')[2], System.Globalization.CultureInfo.InvariantCulture);
            }
        }

        return 0;
    }
}
