using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Vmm.Daemon.Api;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Security;
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

    private DaemonHost(FolderLocks locks, WebApplication web, VmInventory inventory, VmManager vms, AuditLog audit)
    {
        _locks = locks;
        _web = web;
        _inventory = inventory;
        _vms = vms;
        _audit = audit;
    }

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
    public static async Task<DaemonHost> StartAsync(DaemonOptions options, IWorkerLauncher launcher, CancellationToken cancellation, LogLevel level = LogLevel.Information)
    {
        MakeFolders(options);
        // First of all: whoever adopts workers takes them from the daemon they have.
        FolderLocks locks = FolderLocks.Take(options.StateFolder, options.RunFolder);
        try
        {
            return await StartAsync(options, launcher, locks, level, cancellation).ConfigureAwait(false);
        }
        catch
        {
            locks.Dispose();
            throw;
        }
    }

    private static async Task<DaemonHost> StartAsync(DaemonOptions options, IWorkerLauncher launcher, FolderLocks locks, LogLevel level, CancellationToken cancellation)
    {
        // Settings come from the command line alone: without this the builder would watch the current folder, whatever that is, for an appsettings.json.
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder(new WebApplicationOptions { ContentRootPath = AppContext.BaseDirectory, Args = ["--hostBuilder:reloadConfigOnChange=false"] });
        builder.Logging.ClearProviders().AddSimpleConsole(console => console.SingleLine = true).SetMinimumLevel(level).AddFilter("Microsoft", LogLevel.Warning);
        Listeners.Add(builder.WebHost, options);
        builder.Services.AddSingleton(options);
        WebApplication web = builder.Build();
        ILoggerFactory logs = web.Services.GetRequiredService<ILoggerFactory>();
        VmInventory inventory = VmInventory.Open(Path.Combine(options.StateFolder, "inventory.db"));
        VmManager vms = new(inventory, launcher, logs.CreateLogger<VmManager>());
        AuditLog audit = new(Path.Combine(options.StateFolder, "audit.log"));
        DaemonHost host = new(locks, web, inventory, vms, audit);
        try
        {
            if (!options.ListenFds)
            {
                RemoveStaleSocket(options.SocketPath);
            }

            Tokens tokens = new(inventory, TimeProvider.System);
            RequestCounts counts = new();
            await vms.LoadAsync(cancellation).ConfigureAwait(false);
            web.UseWebSockets();
            web.UseMiddleware<RequestGuard>(new Authenticator(options, tokens), audit, counts);
            Endpoints.Map(web, vms, tokens);
            await web.StartAsync(cancellation).ConfigureAwait(false);
            if (!options.ListenFds)
            {
                File.SetUnixFileMode(options.SocketPath, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.GroupWrite);
            }

            await host.AutostartOnceAsync(options, cancellation).ConfigureAwait(false);
            DaemonLog.Listening(logs.CreateLogger<DaemonHost>(), DaemonOptions.Version, options.SocketPath);
            return host;
        }
        catch
        {
            await host.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>The run folder is emptied by every boot (it lies on a tmpfs): the mark in it says that this boot's VMs were started.</summary>
    private async Task AutostartOnceAsync(DaemonOptions options, CancellationToken cancellation)
    {
        string mark = Path.Combine(options.RunFolder, "autostarted");
        if (!File.Exists(mark))
        {
            await _vms.AutostartAsync(cancellation).ConfigureAwait(false);
            await File.WriteAllTextAsync(mark, "", cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>Where the TLS endpoint listens, with the port that it got; null when there is none.</summary>
    public Uri? RemoteAddress => _web.Urls.Where(u => u.StartsWith("https:", StringComparison.Ordinal)).Select(u => new Uri(u)).FirstOrDefault();

    /// <summary>Returns when the process was asked to end.</summary>
    public Task WaitAsync(CancellationToken cancellation) => Task.Delay(Timeout.Infinite, cancellation).ContinueWith(_ => { }, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);

    /// <summary>Stops listening and lets go of the workers; the VMs go on.</summary>
    public async ValueTask DisposeAsync()
    {
        using (CancellationTokenSource deadline = new(TimeSpan.FromSeconds(5)))
        {
            await _web.StopAsync(deadline.Token).ConfigureAwait(false);
        }

        await _web.DisposeAsync().ConfigureAwait(false);
        _vms.Dispose();
        _audit.Dispose();
        _inventory.Dispose();
        _locks.Dispose();
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
