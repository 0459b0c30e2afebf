using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Serilog;
using Serilog.Extensions.Logging;
using Vmm.Daemon.Access;
using Vmm.Daemon.Api;
using Vmm.Daemon.Balancer;
using Vmm.Daemon.Images;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Logging;
using Vmm.Daemon.Metrics;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Networks;
using Vmm.Daemon.Pressure;
using Vmm.Daemon.Replicas.Receiving;
using Vmm.Daemon.Replicas.Sending;
using Vmm.Daemon.Vms;
using Vmm.Daemon.Workers;

namespace Vmm.Daemon.Hosting;

/// <summary>
/// The parts of the daemon, and the order in which they start; they stop in the reverse order.
/// <list type="number">
/// <item><see cref="ListenSocket"/>: nobody else serves the socket.</item>
/// <item><see cref="WorkerLauncher"/>: the pool begins to fill.</item>
/// <item><see cref="VmManager"/>: the inventory is read, workers of an earlier daemon are adopted.</item>
/// <item><see cref="NetworkStore"/>: private networks come up.</item>
/// <item><see cref="Jobs"/>: those of an earlier daemon are told to be interrupted.</item>
/// <item><see cref="Migrations"/>: nothing; when it stops, VMs that come from other hosts are given up.</item>
/// <item><see cref="ReplicaLibrary"/>: replicas of VMs of other hosts are opened.</item>
/// <item><see cref="RecoverySettling"/>: failovers that an earlier daemon was at are finished or undone.</item>
/// <item><see cref="Replications"/>: VMs are cut and sent to other sites again.</item>
/// <item>the web server: the REST interface answers.</item>
/// <item><see cref="Autostart"/>: begins to start the VMs that start with the host.</item>
/// <item><see cref="BalancerService"/>.</item>
/// <item><see cref="PressureService"/>: of all that changes VMs by itself it is the first to stop.</item>
/// <item><see cref="Watchdog"/>: the service manager hears that the daemon works.</item>
/// </list>
/// The host's lifetime then says that the daemon is ready. Everything is made by an expression that names it: nothing is found by
/// reflection.
/// </summary>
internal static class DaemonServices
{
    /// <summary>For all parts together: what waits for clients or jobs does not wait longer.</summary>
    private static readonly TimeSpan s_stopTime = TimeSpan.FromSeconds(5);

    // Requests of replication to other sites at once, each with its buffer.
    private const int MostSent = 4;

    /// <summary>The host with all parts, none of them started.</summary>
    /// <param name="options">How the daemon was told to run.</param>
    /// <param name="launcher">Starts workers instead of <see cref="WorkerLauncher"/>; it stays the caller's.</param>
    /// <exception cref="IOException">The log file cannot be written.</exception>
    internal static IHost Build(DaemonOptions options, IWorkerLauncher? launcher)
    {
        LogLevelSwitch levels = new(options.Log.Level);
        LogFile file = new(options.Log);
        // An empty builder: settings come from the command line and vmmd.yaml alone, not from the environment or an appsettings.json.
        return new HostBuilder()
            .ConfigureLogging(logging => Log(logging, options, levels, file))
            .ConfigureServices(services =>
            {
                services.Configure<HostOptions>(host => host.ShutdownTimeout = s_stopTime);
                ServiceManager.AddLifetime(services);
                services.AddSingleton(options).AddSingleton(levels).AddSingleton(file);
                AddState(services, options);
                AddControl(services);
                services.AddSingleton<ListenSocket>().AddHostedService(p => p.GetRequiredService<ListenSocket>());
                AddWorkers(services, options, launcher);
                services.AddHostedService(p => p.GetRequiredService<VmManager>());
                services.AddHostedService(p => p.GetRequiredService<NetworkStore>());
                services.AddHostedService(p => p.GetRequiredService<Jobs>());
                services.AddHostedService(p => p.GetRequiredService<Migrations>());
                AddReplicas(services, options);
                services.AddHostedService(p => p.GetRequiredService<Replications>());
            })
            .ConfigureWebHost(web => WebServer.Configure(web, options), web => web.SuppressEnvironmentConfiguration = true)
            .ConfigureServices(services =>
            {
                services.AddHostedService(
                    p => new Autostart(options, p.GetRequiredService<VmManager>(), p.GetRequiredService<ILogger<Autostart>>()));
                services.AddHostedService(p => p.GetRequiredService<BalancerService>());
                services.AddHostedService<DiskFileWatch>();
                services.AddHostedService(p => p.GetRequiredService<PressureService>());
                services.AddSingleton<Watchdog>().AddHostedService(p => p.GetRequiredService<Watchdog>());
            })
            .Build();
    }

    private static void Log(ILoggingBuilder logging, DaemonOptions options, LogLevelSwitch levels, LogFile file)
    {
        // Serilog decides
        logging.ClearProviders()
            .SetMinimumLevel(LogLevel.Debug)
            .AddSerilog(LogSetup.Create(options.Log, levels: levels, file: file), dispose: true);
        // What it has to tell is thrown too, and the program says it in one line.
        logging.AddFilter<SerilogLoggerProvider>("Microsoft.Extensions.Hosting.Internal.Host", LogLevel.None);
    }

    private static void AddState(IServiceCollection services, DaemonOptions options)
    {
        services.AddSingleton(_ => VmInventory.Open(Path.Combine(options.StateFolder, "inventory.db")));
        services.AddSingleton(_ => new AuditLog(Path.Combine(options.StateFolder, "audit.log")));
        services.AddSingleton(p => new VmManager(
            p.GetRequiredService<VmInventory>().Vms,
            p.GetRequiredService<IWorkerLauncher>(),
            options.StorageRule,
            p.GetRequiredService<ILogger<VmManager>>(),
            p.GetRequiredService<EventHub>())
        {
            ImageDisks = new ImageDisks(p.GetRequiredService<ImageLibrary>(), new VmFolders(options.MachinesFolder)),
            Networks = p.GetRequiredService<NetworkStore>(),
            Decisions = p.GetRequiredService<VmInventory>().Decisions,
            Peers = new MigrationPeers(options.Peers),
            Processor = () => p.GetRequiredService<HostKvm>().Processor,
            Seeds = new SeedStore(options.SeedsFolder),
            Promises = options.Overcommit is { } ratio ? new MemoryPromises(ratio, options.HostMemory) : MemoryPromises.Unbounded,
        });
        services.AddSingleton(p => new Migrations(
            p.GetRequiredService<VmManager>(), p.GetRequiredService<IWorkerLauncher>(), options.StorageRule,
            p.GetRequiredService<VmInventory>().Decisions, p.GetRequiredService<ILogger<Migrations>>()));
        services.AddSingleton(p => MakeReplications(p, options));
        services.AddSingleton<EventHub>();
        services.AddSingleton(p => new NetworkStore(new NetworkLibrary(options.NetworksFolder), options.Networks,
            p.GetRequiredService<VmManager>, p.GetRequiredService<EventHub>(), p.GetRequiredService<ILogger<NetworkStore>>()));
        services.AddSingleton(p => new DiskFolder(options.DisksFolder, p.GetRequiredService<VmManager>()));
        services.AddSingleton(_ => new ImageLibrary(options.LibraryFolder));
        services.AddSingleton(p => new ImageStore(
            p.GetRequiredService<ImageLibrary>(), p.GetRequiredService<VmManager>(), options.StorageRule));
        services.AddSingleton(p =>
            new Jobs(p.GetRequiredService<VmInventory>().Jobs, p.GetRequiredService<EventHub>(), p.GetRequiredService<ILogger<Jobs>>()));
        services.AddSingleton(p => new PressureService(p.GetRequiredService<VmManager>(), options.Pressure, options.PressureEnabled,
            options.HostReader, p.GetRequiredService<ILogger<PressureService>>(), TimeProvider.System));
        services.AddSingleton(p =>
            new BalancerService(p.GetRequiredService<VmManager>(), options.Balancer, p.GetRequiredService<ILogger<BalancerService>>()));
    }

    private static Replications MakeReplications(IServiceProvider parts, DaemonOptions options)
    {
        VmFolders folders = new(options.MachinesFolder);
        VariableStore variables = new(options.VariablesFolder);
        return new Replications(
            parts.GetRequiredService<VmManager>(),
            new ReplicaParts(
                parts.GetRequiredService<VmInventory>().Replicas,
                options.ReplicaPeers ?? (url =>
                {
                    (Uri at, PeerOptions known) = PeerAddress.Require(
                        options.Peers, url, "replica-invalid", "the VM cannot be replicated like that");
                    return new ReplicaPeer(at, known);
                }),
                vm => Path.Combine(folders.PathOf(vm), "replica"),
                variables.Read,
                parts.GetRequiredService<EventHub>(),
                parts.GetRequiredService<ILogger<Replications>>(),
                TimeProvider.System,
                new SemaphoreSlim(MostSent),
                Environment.MachineName),
            vm => new ChangeLogSource(vm.ChangeLogs));
    }

    private static void AddReplicas(IServiceCollection services, DaemonOptions options)
    {
        services.AddSingleton(p => new ReplicaLibrary(
            options.ReplicasFolder, p.GetRequiredService<VmManager>(), p.GetRequiredService<ILogger<ReplicaLibrary>>())
        {
            Sent = () => [.. p.GetRequiredService<Replications>().All.Select(each => each.Info)],
        });
        services.AddSingleton(p => new PointUsers(p.GetRequiredService<VmManager>()));
        services.AddSingleton(p => new RecoveryVms(
            p.GetRequiredService<VmManager>(), options.StorageRule, new VariableStore(options.VariablesFolder)));
        services.AddSingleton(p => new Recoveries(
            p.GetRequiredService<ReplicaLibrary>(), p.GetRequiredService<RecoveryVms>(), p.GetRequiredService<PointUsers>(),
            p.GetRequiredService<Jobs>()));
        services.AddSingleton(p => new RecoverySettling(
            p.GetRequiredService<ReplicaLibrary>(), p.GetRequiredService<Recoveries>(), p.GetRequiredService<RecoveryVms>(),
            p.GetRequiredService<PointUsers>(), p.GetRequiredService<ILogger<RecoverySettling>>()));
        services.AddHostedService(p => p.GetRequiredService<ReplicaLibrary>());
        services.AddHostedService(p => p.GetRequiredService<RecoverySettling>());
    }

    private static void AddControl(IServiceCollection services)
    {
        services.AddSingleton(p => HostKvm.Of(p.GetRequiredService<DaemonOptions>().Launcher().Program));
        services.AddSingleton(p => new TokenStore(p.GetRequiredService<VmInventory>().Tokens));
        services.AddSingleton(p => new Gatekeeper(p.GetRequiredService<DaemonOptions>(), p.GetRequiredService<TokenStore>()));
        services.AddSingleton(p => new Refusals(p.GetRequiredService<ILogger<Refusals>>()));
        services.AddSingleton(p => new ConnectionGuard(p.GetRequiredService<DaemonOptions>(), p.GetRequiredService<Refusals>()));
        services.AddSingleton(p => new DaemonMetrics(
            p.GetRequiredService<VmManager>(), p.GetRequiredService<BalancerService>(), p.GetRequiredService<PressureService>(),
            p.GetRequiredService<Refusals>(),
            text => ReplicaMetrics.Add(text, p.GetRequiredService<ReplicaLibrary>().All, TimeProvider.System.GetUtcNow()),
            text => SentMetrics.Add(text, p.GetRequiredService<Replications>().All)));
        services.AddSingleton(p => new LogControl(
            p.GetRequiredService<LogLevelSwitch>(), p.GetRequiredService<EventHub>(), p.GetRequiredService<ILogger<LogControl>>()));
        services.AddSingleton(p => new SettingsReloader(
            p.GetRequiredService<DaemonOptions>(), p.GetRequiredService<LogControl>(), p.GetRequiredService<BalancerService>(),
            p.GetRequiredService<PressureService>(), p.GetRequiredService<Gatekeeper>(),
            p.GetRequiredService<LogFile>(), p.GetRequiredService<ILogger<SettingsReloader>>()));
    }

    private static void AddWorkers(IServiceCollection services, DaemonOptions options, IWorkerLauncher? launcher)
    {
        if (launcher is not null)
        {
            services.AddSingleton(launcher);
            return;
        }

        services.AddSingleton(provider =>
        {
            Microsoft.Extensions.Logging.ILogger log = provider.GetRequiredService<ILoggerFactory>().CreateLogger("Vmm.Worker");
            WorkerLauncherOptions launcher = options.Launcher();
            return new WorkerLauncher(launcher with
            {
                WorkerSaid = (process, vm, line) => DaemonLog.WorkerSaid(log, process, vm, line),
                Disks = launcher.Disks with
                {
                    // asked when a disk is in use; the VMs need the launcher first
                    VmOf = process => provider.GetRequiredService<VmManager>().NameOf(process),
                    Networks = (vm, net, index) => provider.GetRequiredService<VmManager>().Nets.Resolve(vm, net, index),
                    NetRemarked = (vm, remark) => provider.GetRequiredService<VmManager>().Remark(vm, remark, "net-remark"),
                    Remarked = (vm, remark) => provider.GetRequiredService<VmManager>().Remark(vm, remark),
                    ShareSaid = (vm, line) => provider.GetRequiredService<VmManager>().Remark(vm, line),
                    Rbd = launcher.Disks.Rbd?.Telling((vm, line) => provider.GetRequiredService<VmManager>().Remark(vm, line)),
                },
            });
        });
        services.AddSingleton<IWorkerLauncher>(p => p.GetRequiredService<WorkerLauncher>());
        services.AddHostedService(p => p.GetRequiredService<WorkerLauncher>());
    }
}
