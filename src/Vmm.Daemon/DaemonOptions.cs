using Vmm.Contracts.Rest;
using Vmm.Daemon.Api;
using Vmm.Daemon.Workers;

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

    /// <summary>Workers kept ready.</summary>
    public int PoolSize { get; init; } = 1;

    /// <summary>Refuse to run a VM whose worker is not fully confined.</summary>
    public bool RequireConfinement { get; init; }

    /// <summary>First uid of workers when the daemon is root: a range that neither login users nor containers have (systemd, UIDS-GIDS).</summary>
    private const uint FirstWorkerUser = 1_900_000_000;

    /// <summary>How workers are started: each as a user of its own when the daemon is root.</summary>
    internal WorkerLauncherOptions Launcher()
    {
        WorkerLauncherOptions launcher = new()
        {
            Directory = Path.Combine(RunFolder, "workers"),
            PoolSize = PoolSize,
            FirstUserId = OwnUser == 0 ? FirstWorkerUser : null,
            Isolated = OwnUser == 0,
            CgroupRoot = OwnUser == 0 ? "/sys/fs/cgroup" : null,
            RequireConfinement = RequireConfinement,
        };
        return WorkerProgram is null ? launcher : launcher with { Program = WorkerProgram };
    }

    /// <summary>The REST socket's path.</summary>
    public string SocketPath => Socket ?? (string.Equals(RunFolder, "/run/vmm", StringComparison.Ordinal) ? VmmClient.DefaultSocket : Path.Combine(RunFolder, "vmmd.sock"));

    /// <summary>Root and the daemon's own user may do everything, others nothing.</summary>
    public bool Allows(Peer peer) => peer.UserId == 0 || peer.UserId == OwnUser;

    private static int OwnUser { get; } = ReadOwnUser();

    /// <summary>Reads the command line: <c>--state DIR --run DIR --socket PATH --worker PATH --pool N --confinement require|best</c>.</summary>
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

            if (string.Equals(args[i], "--pool", StringComparison.Ordinal))
            {
                if (!int.TryParse(args[i + 1], System.Globalization.NumberStyles.None, System.Globalization.CultureInfo.InvariantCulture, out int workers) || workers > 64)
                {
                    problem = $"--pool {args[i + 1]}: expected 0 to 64";
                    return null;
                }

                options = options with { PoolSize = workers };
                continue;
            }

            if (string.Equals(args[i], "--confinement", StringComparison.Ordinal))
            {
                if (args[i + 1] is not ("require" or "best"))
                {
                    problem = $"--confinement {args[i + 1]}: expected require or best";
                    return null;
                }

                options = options with { RequireConfinement = args[i + 1] is "require" };
                continue;
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
                problem = $"unknown option {args[i]}; known: --state DIR, --run DIR, --socket PATH, --worker PATH, --pool N, --confinement require|best";
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
