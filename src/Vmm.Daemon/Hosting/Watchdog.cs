using System.Globalization;
using System.Net.Sockets;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Hosting.Systemd;

namespace Vmm.Daemon.Hosting;

/// <summary>
/// Tells the service manager that the daemon works (sd_watchdog_enabled(3)), each time after having asked its own <c>/healthz</c> through
/// its own socket: a daemon whose web server or thread pool hangs falls silent, and is ended and started anew.
/// </summary>
internal sealed class Watchdog(DaemonOptions options, ISystemdNotifier notifier) : BackgroundService
{
    private static readonly ServiceState s_alive = new("WATCHDOG=1");

    /// <summary>How often the service manager wants to hear from this process; null when it does not.</summary>
    internal static TimeSpan? Interval()
    {
        bool forUs = Environment.GetEnvironmentVariable("WATCHDOG_PID") is not { Length: > 0 } pid
            || string.Equals(pid, Environment.ProcessId.ToString(CultureInfo.InvariantCulture), StringComparison.Ordinal);
        return forUs
            && long.TryParse(
                Environment.GetEnvironmentVariable("WATCHDOG_USEC"), NumberStyles.None, CultureInfo.InvariantCulture, out long microseconds)
            && microseconds is > 0 and < 86_400_000_000
            ? TimeSpan.FromMicroseconds(microseconds) : null;
    }

    /// <inheritdoc/>
    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        Interval() is { } interval
            ? RunAsync(options.SocketPath, interval, () => ServiceManager.Tell(notifier, s_alive), stoppingToken)
            : Task.CompletedTask;

    /// <summary>Asks and tells, four times in each interval, until it is cancelled.</summary>
    internal static async Task RunAsync(string socketPath, TimeSpan interval, Action alive, CancellationToken cancellation)
    {
        using SocketsHttpHandler handler = new()
        {
            UseProxy = false,
            ConnectCallback = (_, stop) => ConnectAsync(socketPath, stop),
            PooledConnectionLifetime = TimeSpan.Zero
        };
        using HttpClient http = new(handler) { Timeout = interval / 2 };
        using PeriodicTimer timer = new(interval / 4);
        try
        {
            do
            {
                if (await IsHealthyAsync(http, cancellation).ConfigureAwait(false))
                {
                    alive();
                }
            }
            while (await timer.WaitForNextTickAsync(cancellation).ConfigureAwait(false));
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // The daemon ends.
        }
    }

    private static async Task<bool> IsHealthyAsync(HttpClient http, CancellationToken cancellation)
    {
        try
        {
            using HttpResponseMessage answer = await http.GetAsync(new Uri("http://vmmd/healthz"), cancellation).ConfigureAwait(false);
            return answer.IsSuccessStatusCode;
        }
        catch (Exception e) when (e is HttpRequestException or OperationCanceledException && !cancellation.IsCancellationRequested)
        {
            return false; // silence is the message
        }
    }

    private static async ValueTask<Stream> ConnectAsync(string path, CancellationToken cancellation)
    {
        Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), cancellation).ConfigureAwait(false);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
