using System.Globalization;
using System.Net.Sockets;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Hosting.Systemd;

namespace Vmm.Daemon.Hosting;

/// <summary>
/// What a service manager gave this process: a listening socket (sd_listen_fds(3)) and somebody to notify (sd_notify(3)).
/// </summary>
internal static class ServiceManager
{
    /// <summary>The first descriptor that a service manager passes (SD_LISTEN_FDS_START).</summary>
    internal const ulong FirstSocket = 3;

    /// <summary>
    /// True when the listening unix socket was made by the service manager and passed as <see cref="FirstSocket"/>, sd_listen_fds(3).
    /// </summary>
    internal static bool PassesSocket =>
        string.Equals(
            Environment.GetEnvironmentVariable("LISTEN_PID"),
            Environment.ProcessId.ToString(CultureInfo.InvariantCulture),
            StringComparison.Ordinal)
        && string.Equals(Environment.GetEnvironmentVariable("LISTEN_FDS"), "1", StringComparison.Ordinal);

    /// <summary>
    /// The host's lifetime for one who is notified: <c>READY=1</c> when every service has started, <c>STOPPING=1</c> when the end begins.
    /// NOTIFY_SOCKET alone decides: the package's own test (is the parent called systemd?) fails for a user's manager and for other
    /// managers with the same protocol.
    /// </summary>
    internal static void AddLifetime(IServiceCollection services)
    {
        services.AddSingleton<ISystemdNotifier, SystemdNotifier>();
        if (Environment.GetEnvironmentVariable("NOTIFY_SOCKET") is { Length: > 1 })
        {
            services.AddSingleton<IHostLifetime, SystemdLifetime>();
        }
        else
        {
            services.AddSingleton<IHostLifetime, QuietLifetime>();
        }
    }

    /// <summary>Tells; a service manager that went away is no reason to stop.</summary>
    internal static void Tell(ISystemdNotifier notifier, ServiceState state)
    {
        try
        {
            notifier.Notify(state);
        }
        catch (SocketException)
        {
            // Nobody is there any more.
        }
    }

    /// <summary>
    /// Nobody to notify. Signals are <see cref="ProcessSignals"/>' matter: a host inside another program must not take that one's.
    /// </summary>
    private sealed class QuietLifetime : IHostLifetime
    {
        public Task WaitForStartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
