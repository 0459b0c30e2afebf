using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Routing;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Serilog;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Api;
using Vmm.Daemon.Balancer;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Logging;
using Vmm.Daemon.Metrics;
using Vmm.Daemon.Vms;
using Vmm.Daemon.Workers;

namespace Vmm.Daemon;

/// <summary>The daemon put together: inventory, VMs, web server on a unix socket. Tests start it with a launcher of their own.</summary>
public sealed class DaemonHost : IAsyncDisposable
{
    private readonly FolderLocks _locks;
    private readonly WebApplication _web;
    private readonly VmInventory _inventory;
    private readonly VmManager _vms;
    private readonly AuditLog _audit;
    private Jobs? _jobs;
    private LogControl? _logLevel;
    private Gatekeeper? _gate;
    private DaemonOptions _options = new();
    private Microsoft.Extensions.Logging.ILogger? _log;
    private BalancerService? _balancer;
    private readonly CancellationTokenSource _ending = new();
    private Task _autostart = Task.CompletedTask;

    /// <summary>The balancer.</summary>
    internal BalancerService Balancer => _balancer!;

    /// <summary>The VMs it keeps.</summary>
    internal VmManager Vms => _vms;

    private DaemonHost(FolderLocks locks, WebApplication web, VmInventory inventory, VmManager vms, AuditLog audit)
    {
        _audit = audit;
        _locks = locks;
        _web = web;
        _inventory = inventory;
        _vms = vms;
    }

    /// <summary>Every route.</summary>
    internal IEnumerable<EndpointDataSource> Routes { get; private set; } = [];

    /// <summary>Where it listens with TLS, with the port it got; null is nowhere.</summary>
    internal Uri? TlsAddress => _web.Urls.Select(u => new Uri(u)).FirstOrDefault(u => string.Equals(u.Scheme, "https", StringComparison.Ordinal));

    /// <summary>Makes the state and the run folder where they are missing; others than the daemon's user and group see neither.</summary>
    /// <exception cref="IOException">A folder cannot be made.</exception>
    public static void MakeFolders(DaemonOptions options)
    {
        const UnixFileMode Owner = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
        Directory.CreateDirectory(options.StateFolder, Owner);
        Directory.CreateDirectory(options.RunFolder, Owner | UnixFileMode.GroupRead | UnixFileMode.GroupExecute);
    }

    /// <summary>Starts everything; when this returns, the socket answers.</summary>
    /// <exception cref="InventoryException">The inventory cannot be used.</exception>
    /// <exception cref="IOException">A folder or the socket cannot be made, or another vmmd is at work there.</exception>
    public static async Task<DaemonHost> StartAsync(DaemonOptions options, IWorkerLauncher launcher, CancellationToken cancellation)
    {
        MakeFolders(options);
        // First of all: whoever adopts workers takes them from the daemon they have.
        FolderLocks locks = FolderLocks.Take(options.StateFolder, options.RunFolder);
        try
        {
            return await StartAsync(options, launcher, locks, cancellation).ConfigureAwait(false);
        }
        catch
        {
            locks.Dispose();
            throw;
        }
    }

    private static async Task<DaemonHost> StartAsync(DaemonOptions options, IWorkerLauncher launcher, FolderLocks locks, CancellationToken cancellation)
    {
        // Settings come from the command line alone: without this the builder would watch the current folder, whatever that is, for an appsettings.json.
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder(new WebApplicationOptions { ContentRootPath = AppContext.BaseDirectory, Args = ["--hostBuilder:reloadConfigOnChange=false"] });
        LogLevelSwitch levels = new(options.Log.Level);
        builder.Logging.ClearProviders().SetMinimumLevel(LogLevel.Debug).AddSerilog(LogSetup.Create(options.Log, levels: levels), dispose: true); // Serilog decides
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = DaemonOptions.MaxBodyBytes;
            kestrel.Limits.RequestHeadersTimeout = TimeSpan.FromSeconds(10);
            if (ServiceManager.PassesSocket)
            {
                kestrel.ListenHandle(ServiceManager.FirstSocket, socket => socket.Protocols = HttpProtocols.Http1);
            }
            else
            {
                kestrel.ListenUnixSocket(options.SocketPath, socket => socket.Protocols = HttpProtocols.Http1);
            }

            if (options.Listen is { } at)
            {
                TlsEndpoint.Add(kestrel, at, options);
            }
        });
        WebApplication web = builder.Build();
        ILoggerFactory logs = web.Services.GetRequiredService<ILoggerFactory>();
        VmInventory inventory = VmInventory.Open(Path.Combine(options.StateFolder, "inventory.db"));
        AuditLog audit = new(Path.Combine(options.StateFolder, "audit.log"));
        VmManager vms = new(inventory, launcher, logs.CreateLogger<VmManager>());
        DaemonHost host = new(locks, web, inventory, vms, audit);
        try
        {
            if (!ServiceManager.PassesSocket)
            {
                RemoveStaleSocket(options.SocketPath);
            }

            await vms.LoadAsync(cancellation).ConfigureAwait(false);
            TokenStore tokens = new(inventory);
            DaemonMetrics metrics = new(vms);
            host._gate = new Gatekeeper(options, tokens);
            host._log = logs.CreateLogger<DaemonHost>();
            host._options = options;
            host._logLevel = new LogControl(levels, vms.Events, host._log);
            web.UseMiddleware<RequestGuard>(host._gate, audit, metrics);
            web.UseWebSockets();
            host._jobs = new Jobs(inventory, vms.Events, logs.CreateLogger<Jobs>());
            host._balancer = new BalancerService(vms, options.Balancer, logs.CreateLogger<BalancerService>());
            metrics.Balancer = host._balancer;
            Endpoints.Map(web, vms, tokens, metrics, host._jobs, new DiskFolder(options.DisksFolder, vms), host._balancer, host._logLevel);
            host.Routes = ((IEndpointRouteBuilder)web).DataSources;
            await web.StartAsync(cancellation).ConfigureAwait(false);
            if (!ServiceManager.PassesSocket)
            {
                File.SetUnixFileMode(options.SocketPath, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.GroupWrite);
            }

            host._autostart = host.AutostartOnceAsync(options);
            host._balancer.Start();
            DaemonLog.Listening(host._log, DaemonOptions.Version, options.SocketPath);
            return host;
        }
        catch
        {
            await host.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>The run folder is emptied by every boot (it lies on a tmpfs): the mark in it says that this boot's VMs were started.</summary>
    private async Task AutostartOnceAsync(DaemonOptions options)
    {
        string mark = Path.Combine(options.RunFolder, "autostarted");
        if (File.Exists(mark))
        {
            return;
        }

        // In the background: VMs with much memory take minutes, and the daemon is of use before. One that ends before the mark is written begins anew with
        // those that do not run yet.
        await Task.Yield();
        await _vms.AutostartAsync(_ending.Token).ConfigureAwait(false);
        if (_ending.IsCancellationRequested)
        {
            return;
        }

        try
        {
            await File.WriteAllTextAsync(mark, "", CancellationToken.None).ConfigureAwait(false);
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            DaemonLog.MarkUnwritten(_log!, mark, cause.Message);
        }
    }

    /// <summary>Takes over what can change while the daemon runs: the log level, the balancer's mode, and who the client certificates are.</summary>
    /// <param name="next">The settings as they are now; null when they are not sound.</param>
    /// <param name="problem">Why they are not.</param>
    public void Reload(DaemonOptions? next, string problem)
    {
        if (next is null)
        {
            DaemonLog.NotReread(_log!, problem);
            return;
        }

        _logLevel!.Set(next.Log.Level);
        _balancer!.Set(new BalancerWish(next.Balancer.Enabled, next.Balancer.DryRun));
        _gate!.Replace(next.Certificates);
        DaemonOptions same = _options with
        {
            Log = _options.Log with { Level = next.Log.Level },
            Balancer = _options.Balancer with { Enabled = next.Balancer.Enabled, DryRun = next.Balancer.DryRun },
            Certificates = next.Certificates,
        };
        DaemonLog.Reread(_log!, same == next ? "" : "; what else has changed waits for the daemon's next start");
    }

    /// <summary>Returns when the process was asked to end.</summary>
    public Task WaitAsync(CancellationToken cancellation) => Task.Delay(Timeout.Infinite, cancellation).ContinueWith(_ => { }, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);

    /// <summary>Stops listening and lets go of the workers; the VMs go on.</summary>
    public async ValueTask DisposeAsync()
    {
        await _ending.CancelAsync().ConfigureAwait(false);
        await _autostart.ConfigureAwait(false);
        using (CancellationTokenSource deadline = new(TimeSpan.FromSeconds(5)))
        {
            await _web.StopAsync(deadline.Token).ConfigureAwait(false);
        }

        await _web.DisposeAsync().ConfigureAwait(false);
        if (_balancer is not null)
        {
            await _balancer.DisposeAsync().ConfigureAwait(false);
        }

        if (_jobs is not null)
        {
            await _jobs.DisposeAsync().ConfigureAwait(false);
        }

        _vms.Dispose();
        _inventory.Dispose();
        _audit.Dispose();
        _locks.Dispose();
        _ending.Dispose();
    }

    /// <summary>A socket file that nobody answers was left by a daemon that was killed. One that answers is that of a daemon with other folders.</summary>
    private static void RemoveStaleSocket(string path)
    {
        if (!File.Exists(path))
        {
            return;
        }

        using System.Net.Sockets.Socket probe = new(System.Net.Sockets.AddressFamily.Unix, System.Net.Sockets.SocketType.Stream, System.Net.Sockets.ProtocolType.Unspecified);
        try
        {
            probe.Connect(new System.Net.Sockets.UnixDomainSocketEndPoint(path));
        }
        catch (System.Net.Sockets.SocketException)
        {
            File.Delete(path);
            return;
        }

        throw new IOException($"{path}: another vmmd answers there");
    }
}
