using System.Net;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Api;
using Vmm.Daemon.Balancer;
using Vmm.Daemon.Logging;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Networks;
using Vmm.Daemon.Pressure;
using Vmm.Daemon.Replicas.Sending;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Vms;
using Vmm.Daemon.Workers;
using Vmm.Memory;

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

    /// <summary>How long a VM may take to be built and started; with huge pages it may take longer.</summary>
    public TimeSpan StartTimeout { get; init; } = TimeSpan.FromMinutes(1);

    /// <summary>Refuse to run a VM whose worker is not fully confined.</summary>
    public bool RequireConfinement { get; init; }

    /// <summary>
    /// First uid of workers when the daemon is root: a range that neither login users nor containers have (systemd, UIDS-GIDS), above what
    /// SSSD gives to the users of a directory by default (200000 to 2000200000, sssd-ldap(5)), and below 2^31.
    /// </summary>
    internal const uint FirstWorkerUser = 2_100_000_000;

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
            LongestStart = StartTimeout,
            Disks = new DiskAccess(StorageRule)
            {
                Seeds = new SeedStore(SeedsFolder),
                SwapFolder = Path.Combine(StateFolder, "swap"),
                Variables = new VariableStore(VariablesFolder),
                Rbd = new RbdProcesses(Path.Combine(RunFolder, "rbd"), OwnUser == 0 ? FirstWorkerUser - 1 : null),
            },
        };
        return WorkerProgram is null ? launcher : launcher with { Program = WorkerProgram };
    }

    /// <summary>The REST socket's path.</summary>
    public string SocketPath => Socket ?? (string.Equals(RunFolder, "/run/vmm", StringComparison.Ordinal)
        ? VmmClient.DefaultSocket
        : Path.Combine(RunFolder, "vmmd.sock"));

    /// <summary>Root and the daemon's own user may do everything, others nothing.</summary>
    public bool Allows(Peer peer) => peer.UserId == 0 || (uint)peer.UserId == OwnUser;

    private static uint OwnUser => HostAccounts.OwnUser;

    /// <summary>Where <c>POST /api/v1/disks</c> makes disks; null is <c>disks</c> in the state folder.</summary>
    public string? Disks { get; init; }

    /// <summary>The folder of disks.</summary>
    public string DisksFolder => Disks ?? Path.Combine(StateFolder, "disks");

    /// <summary>Where images are kept. What lies there is read only.</summary>
    public string LibraryFolder => Path.Combine(StateFolder, "library");

    /// <summary>Where replicas of VMs of other hosts are kept; null is <c>replicas</c> in the state folder.</summary>
    public string? Replicas { get; init; }

    /// <summary>The folder of replicas, a folder each. What lies there is read only for VMs.</summary>
    public string ReplicasFolder => Replicas ?? Path.Combine(StateFolder, "replicas");

    /// <summary>Where the variables of firmware are, a file a VM.</summary>
    internal string VariablesFolder => Path.Combine(StateFolder, "variables");

    /// <summary>Where private networks are stored.</summary>
    public string NetworksFolder => Path.Combine(StateFolder, "networks");

    /// <summary>What private networks are made of; null: this host.</summary>
    internal INetworkHost? NetworkHost { get; init; }

    /// <summary>This host, with a user for the programs of networks.</summary>
    internal INetworkHost Networks => NetworkHost ?? new HostNetworks(Path.Combine(RunFolder, "networks"), FirstWorkerUser - 2);

    /// <summary>Where disks that VMs own are: a folder each, which goes with its VM.</summary>
    public string MachinesFolder => Path.Combine(StateFolder, "machines");

    /// <summary>Where the seeds of VMs are, which nothing but their VMs gets.</summary>
    internal string SeedsFolder => Path.Combine(StateFolder, "seeds");

    /// <summary>
    /// Folders beneath which disks, kernels and initrds of specs may lie, besides <see cref="DisksFolder"/>; null: <c>images</c> in the
    /// state folder, and the guests of the package.
    /// </summary>
    public IReadOnlyList<string>? Storage { get; init; }

    /// <summary>Folders beneath which block devices may be disks.</summary>
    public IReadOnlyList<string> BlockDevices { get; init; } = [];

    /// <summary>NBD servers that disks may be on: host:port, or the path of a unix socket.</summary>
    public IReadOnlyList<string> NbdServers { get; init; } = [];

    /// <summary>Pools of Ceph clusters that disks may be in: rbd:POOL[/NAMESPACE][?conf=FILE&amp;user=NAME&amp;keyring=FILE].</summary>
    public IReadOnlyList<string> RbdPools { get; init; } = [];

    /// <summary>What a spec may name.</summary>
    internal StorageFolders StorageRule =>
        new([DisksFolder, MachinesFolder, .. Storage ?? [Path.Combine(StateFolder, "images"), "/usr/lib/vmm/guests"]],
            BlockDevices, NbdServers, RbdPools)
        { ReadOnlyFolders = [LibraryFolder, ReplicasFolder] };

    /// <summary>Where to listen with TLS; null is nowhere.</summary>
    public IPEndPoint? Listen { get; init; }

    /// <summary>The daemon's certificate (PEM, with its chain), for <see cref="Listen"/>.</summary>
    public string? CertificateFile { get; init; }

    /// <summary>Its private key (PEM).</summary>
    public string? KeyFile { get; init; }

    /// <summary>Authorities that sign client certificates (PEM); null lets nobody in by certificate.</summary>
    public string? ClientAuthorityFile { get; init; }

    /// <summary>How this vmmd and those of other hosts know each other; null: no VM goes to another host.</summary>
    public PeerOptions? Peers { get; init; }

    /// <summary>Finds recovery sites by their address; null: over the network.</summary>
    internal Func<string, IReplicaPeer>? ReplicaPeers { get; init; }

    /// <summary>
    /// Most connections at once, of all users of the unix socket but root and the daemon's own, and again of all clients of the TLS port.
    /// </summary>
    public int Connections { get; init; } = 512;

    /// <summary>Most of them of one user, or of one address.</summary>
    public int PeerConnections { get; init; } = 128;

    /// <summary>Members of this group of the host may operate VMs.</summary>
    public string? OperatorsGroup { get; init; } = "vmm";

    /// <summary>Members of this group of the host may look.</summary>
    public string? ViewersGroup { get; init; }

    /// <summary>The balancer of memory.</summary>
    public BalancerOptions Balancer { get; init; } = BalancerOptions.Off;

    /// <summary>How often the host's memory may be promised to VMs that run; null: no start is refused for memory.</summary>
    public double? Overcommit { get; init; }

    /// <summary>The loop that takes memory from VMs with a resident limit when the host is short.</summary>
    internal PressureOptions Pressure { get; init; } = new();

    /// <summary>It runs: as it was told, or because memory is overcommitted.</summary>
    internal bool PressureEnabled => Pressure.Enabled ?? Overcommit is not null;

    /// <summary>Where the host says how its memory stands.</summary>
    internal HostMemoryReader HostReader { get; init; } = HostMemoryReader.Host;

    /// <summary>The host's memory; zero: it is not known.</summary>
    internal Func<ByteSize> HostMemory { get; init; } =
        () => new ByteSize(HostTopology.Read().Nodes.Aggregate(0UL, (sum, node) => sum + node.TotalBytes));

    /// <summary>The log.</summary>
    public LogOptions Log { get; init; } = new();

    /// <summary>Client certificates that are known.</summary>
    public IReadOnlyList<CertificatePrincipal> Certificates { get; init; } = [];

    /// <summary>
    /// Reads the command line over the configuration file (<c>--config FILE</c>, else <see cref="DaemonConfig.DefaultPath"/> when it is
    /// there).
    /// </summary>
    /// <returns>The options, or null with what is wrong.</returns>
    public static DaemonOptions? Parse(string[] args, out string problem)
    {
        DaemonOptions options = new();
        string? config = File.Exists(DaemonConfig.DefaultPath) ? DaemonConfig.DefaultPath : null;
        for (int i = 0; i < args.Length; i += 2)
        {
            if (i + 1 == args.Length || args[i + 1].Length == 0)
            {
                problem = $"{args[i]} needs a value";
                return null;
            }

            config = string.Equals(args[i], "--config", StringComparison.Ordinal) ? args[i + 1] : config;
        }

        problem = "";
        if (config is not null)
        {
            if (DaemonConfig.Read(options, config, out problem) is not { } configured)
            {
                return null;
            }

            options = configured;
        }

        for (int i = 0; i < args.Length; i += 2)
        {
            if (string.Equals(args[i], "--config", StringComparison.Ordinal))
            {
                continue;
            }

            if (!args[i].StartsWith("--", StringComparison.Ordinal)
                || options.With(Camel(args[i][2..]), args[i + 1], out problem) is not { } next)
            {
                problem = problem.Length > 0 ? $"{args[i]} {args[i + 1]}: {problem}" : $"unknown option {args[i]}; vmmd --help lists them";
                return null;
            }

            options = next;
        }

        return options.Check(out problem) ? options : null;
    }

    /// <summary>With one setting changed; null for an unknown one (no problem) or a value that makes no sense (a problem).</summary>
    internal DaemonOptions? With(string key, string value, out string problem) => DaemonSettings.Change(this, key, value, out problem);

    private bool Check(out string problem)
    {
        problem = Listen is not null && (CertificateFile is null || KeyFile is null) ? "listen needs a certificate and its key"
            : Listen is null && (CertificateFile is not null || ClientAuthorityFile is not null)
                ? "certificate and clientCa are for listen, which is missing"
            : Certificates.Count > 0 && ClientAuthorityFile is null ? "principals with certificates need clientCa"
            : "";
        return problem.Length == 0;
    }

    /// <summary>client-ca to clientCa.</summary>
    private static string Camel(string flag)
    {
        string[] words = flag.Split('-');
        return words[0] + string.Concat(words.Skip(1).Select(w => w.Length == 0 ? "-" : char.ToUpperInvariant(w[0]) + w[1..]));
    }
}
