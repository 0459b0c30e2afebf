using Vmm.Contracts.Rest;
using Vmm.Daemon.Security;
using Vmm.Daemon.Workers;

namespace Vmm.Daemon;

/// <summary>How the daemon was told to run.</summary>
public sealed partial record DaemonOptions
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
        };
        return WorkerProgram is null ? launcher : launcher with { Program = WorkerProgram };
    }

    /// <summary>The REST socket's path.</summary>
    public string SocketPath => Socket ?? (string.Equals(RunFolder, "/run/vmm", StringComparison.Ordinal) ? VmmClient.DefaultSocket : Path.Combine(RunFolder, "vmmd.sock"));

    /// <summary>Where <c>POST /api/v1/disks</c> makes disks; null is <c>disks</c> in the state folder.</summary>
    public string? Disks { get; init; }

    /// <summary>The folder of disks.</summary>
    public string DisksFolder => Disks ?? Path.Combine(StateFolder, "disks");

    /// <summary>Group of this machine whose members are operators on the unix socket; empty for none.</summary>
    public string OperatorGroup { get; init; } = "vmm";

    /// <summary>The listening unix socket comes from the service manager (sd_listen_fds(3)).</summary>
    public bool ListenFds { get; init; }

    /// <summary>TLS endpoint, <c>https://ADDRESS:PORT</c>; null for none.</summary>
    public string? Listen { get; init; }

    /// <summary>The daemon's certificate (PEM, with its chain), for <see cref="Listen"/>.</summary>
    public string? Certificate { get; init; }

    /// <summary>Its key (PEM).</summary>
    public string? Key { get; init; }

    /// <summary>Who signs client certificates (PEM); null when clients come with tokens only.</summary>
    public string? ClientAuthority { get; init; }

    /// <summary>Client certificates that have a role; the first that fits counts.</summary>
    public IReadOnlyList<CertificateRule> Principals { get; init; } = [];

    internal static uint OwnUser { get; } = ReadOwnUser();

    /// <summary>The effective user, from /proc: there is no managed call for it.</summary>
    private static uint ReadOwnUser()
    {
        foreach (string line in File.ReadLines("/proc/self/status"))
        {
            if (line.StartsWith("Uid:", StringComparison.Ordinal))
            {
                return uint.Parse(line.Split('\t')[2], System.Globalization.CultureInfo.InvariantCulture);
            }
        }

        return 0;
    }
}
