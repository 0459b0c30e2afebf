using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Vmm.Daemon.Balancer;
using Vmm.Daemon.Hosting;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Pressure;
using Vmm.Daemon.Vms;
using Vmm.Daemon.Workers;

namespace Vmm.Daemon;

/// <summary>
/// The daemon: a generic host over its folders, whose parts are hosted services (<see cref="DaemonServices"/>). Tests start it with a
/// launcher of their own.
/// </summary>
public sealed class DaemonHost : IAsyncDisposable
{
    private readonly FolderLocks _locks;
    private readonly IHost _host;
    private bool _parts, _disposed;

    private DaemonHost(FolderLocks locks, IHost host) => (_locks, _host) = (locks, host);

    /// <summary>The pressure loop.</summary>
    internal PressureService Pressure => _host.Services.GetRequiredService<PressureService>();

    /// <summary>The balancer.</summary>
    internal BalancerService Balancer => _host.Services.GetRequiredService<BalancerService>();

    /// <summary>The VMs it keeps.</summary>
    internal VmManager Vms => _host.Services.GetRequiredService<VmManager>();

    /// <summary>Every route.</summary>
    internal IEnumerable<EndpointDataSource> Routes => [_host.Services.GetRequiredService<EndpointDataSource>()];

    /// <summary>Where it listens with TLS, with the port it got; null is nowhere.</summary>
    internal Uri? TlsAddress => _host.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses
        .Select(u => new Uri(u)).FirstOrDefault(u => string.Equals(u.Scheme, "https", StringComparison.Ordinal));

    /// <summary>Makes the state and the run folder where they are missing; others than the daemon's user and group see neither.</summary>
    /// <exception cref="IOException">A folder cannot be made.</exception>
    public static void MakeFolders(DaemonOptions options)
    {
        const UnixFileMode Owner = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
        Directory.CreateDirectory(options.StateFolder, Owner);
        Directory.CreateDirectory(options.RunFolder, Owner | UnixFileMode.GroupRead | UnixFileMode.GroupExecute);
    }

    /// <summary>Takes the folders and puts the parts together; nothing has started yet.</summary>
    /// <param name="options">How the daemon was told to run.</param>
    /// <param name="launcher">Starts workers; it stays the caller's. Null: as <paramref name="options"/> say.</param>
    /// <exception cref="IOException">A folder cannot be made or the log file not be written, or another vmmd is at work there.</exception>
    public static DaemonHost Build(DaemonOptions options, IWorkerLauncher? launcher = null)
    {
        MakeFolders(options);
        // First of all: whoever adopts workers takes them from the daemon they have.
        FolderLocks locks = FolderLocks.Take(options.StateFolder, options.RunFolder);
        try
        {
            return new DaemonHost(locks, DaemonServices.Build(options, launcher));
        }
        catch
        {
            locks.Dispose();
            throw;
        }
    }

    /// <summary>Builds and starts one.</summary>
    /// <exception cref="InventoryException">The inventory cannot be used.</exception>
    /// <exception cref="IOException">A folder or the socket cannot be made, or another vmmd is at work there.</exception>
    public static async Task<DaemonHost> StartAsync(DaemonOptions options, IWorkerLauncher launcher, CancellationToken cancellation)
    {
        DaemonHost host = Build(options, launcher);
        try
        {
            await host.StartAsync(cancellation).ConfigureAwait(false);
            return host;
        }
        catch
        {
            await host.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Starts every part in its order; when this returns, the socket answers.</summary>
    /// <exception cref="InventoryException">The inventory cannot be used.</exception>
    /// <exception cref="IOException">The socket cannot be made, or another vmmd is at work there.</exception>
    public async Task StartAsync(CancellationToken cancellation)
    {
        _ = _host.Services.GetServices<IHostedService>(); // makes them, the inventory behind them too: until then there is nothing to stop
        _parts = true;
        await _host.StartAsync(cancellation).ConfigureAwait(false);
        DaemonOptions options = _host.Services.GetRequiredService<DaemonOptions>();
        DaemonLog.Listening(_host.Services.GetRequiredService<ILogger<DaemonHost>>(), DaemonOptions.Version, options.SocketPath);
    }

    /// <summary>
    /// Takes over what can change while the daemon runs: the log level, the balancer's mode, and who the client certificates are.
    /// </summary>
    /// <param name="next">The settings as they are now; null when they are not sound.</param>
    /// <param name="problem">Why they are not.</param>
    public void Reload(DaemonOptions? next, string problem) => _host.Services.GetRequiredService<SettingsReloader>().Reload(next, problem);

    /// <summary>Returns when the process was asked to end, and every part has stopped.</summary>
    public Task WaitAsync(CancellationToken cancellation) => _host.WaitForShutdownAsync(cancellation);

    /// <summary>Stops listening and lets go of the workers; the VMs go on.</summary>
    public async ValueTask DisposeAsync()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        try
        {
            if (_parts)
            {
                await _host.StopAsync(CancellationToken.None).ConfigureAwait(false);
            }
        }
        finally
        {
            await ((IAsyncDisposable)_host).DisposeAsync().ConfigureAwait(false);
            _locks.Dispose();
        }
    }
}
