using System.Net.Sockets;
using Vmm.Daemon.Hosting;

namespace Vmm.Daemon.Tests;

public sealed class WatchdogTests
{
    private static readonly TimeSpan Interval = TimeSpan.FromMilliseconds(400);

    [Fact]
    public async Task A_daemon_that_answers_is_reported_alive_and_one_that_is_gone_is_not()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        using CancellationTokenSource stop = new();
        int pings = 0;
        Task watchdog = Watchdog.RunAsync(daemon.Options.SocketPath, Interval, () => Interlocked.Increment(ref pings), stop.Token);
        Assert.True(
            SpinWait.SpinUntil(() => Volatile.Read(ref pings) >= 3, TimeSpan.FromSeconds(30)), "no pings from a daemon that answers");

        await daemon.StopDaemonAsync();
        await Task.Delay(Interval);
        int before = Volatile.Read(ref pings);
        await Task.Delay(2 * Interval);
        Assert.Equal(before, Volatile.Read(ref pings));

        await daemon.StartDaemonAsync();
        Assert.True(
            SpinWait.SpinUntil(() => Volatile.Read(ref pings) > before, TimeSpan.FromSeconds(30)), "no ping after the daemon came back");
        await stop.CancelAsync();
        await watchdog;
    }

    [Fact]
    public async Task A_socket_that_connects_but_never_answers_is_silence()
    {
        DirectoryInfo folder = Directory.CreateTempSubdirectory("vmmd-watchdog-");
        try
        {
            string path = Path.Combine(folder.FullName, "s");
            using Socket deaf = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            deaf.Bind(new UnixDomainSocketEndPoint(path));
            deaf.Listen();
            using CancellationTokenSource stop = new(4 * Interval);
            int pings = 0;
            await Watchdog.RunAsync(path, Interval, () => Interlocked.Increment(ref pings), stop.Token);
            Assert.Equal(0, pings);
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }
}
