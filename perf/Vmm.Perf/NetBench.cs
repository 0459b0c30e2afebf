using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace Vmm.Perf;

/// <summary>
/// (f) frames a second between a tap and the network micro-guest, each way, over virtio-mmio; in a network namespace of its own.
/// </summary>
internal sealed class NetBench(Bench bench)
{
    private const string Tap = "vmmtap0", GuestAddress = "192.0.2.2";
    private readonly string _namespace = Row.Invariant($"vmmperf{Environment.ProcessId}");

    internal void Run(Report report)
    {
        Ip("netns", "add", _namespace);
        try
        {
            Ip("-n", _namespace, "tuntap", "add", "dev", Tap, "mode", "tap");
            Ip("-n", _namespace, "addr", "add", "192.0.2.1/24", "dev", Tap);
            Ip("-n", _namespace, "link", "set", Tap, "up");
            Ip("-n", _namespace, "neigh", "add", GuestAddress, "lladdr", "52:54:00:12:34:56", "dev", Tap, "nud", "permanent");
            foreach ((string mode, int size) in new[] { ("send", 1514), ("send", 64), ("receive", 1514) })
            {
                Dictionary<Contender, List<double>> rates = bench.Empty();
                bench.InTurn(
                    bench.Short ? 1 : bench.AgainstItself ? 10 : 5, contender => rates[contender].Add(Once(contender, mode, size)));
                report.Add(bench.Row(Row.Invariant($"(f) virtio-net, guest {mode}s frames of {size} bytes"), "frames/s", rates) with
                {
                    AtLeast = 1
                });
            }
        }
        finally
        {
            Ip("netns", "del", _namespace);
        }
    }

    /// <summary>Sends datagrams to the guest as fast as they go, until somebody ends the process.</summary>
    internal static int Flood()
    {
        using Socket socket = new(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        socket.Connect(IPAddress.Parse(GuestAddress), 5001);
        byte[] payload = new byte[1472];
        while (true)
        {
            try
            {
                socket.Send(payload);
            }
            catch (SocketException e) when (e.SocketErrorCode is SocketError.NoBufferSpaceAvailable or SocketError.ConnectionRefused
                or SocketError.HostUnreachable)
            {
                Thread.Yield();
            }
        }
    }

    private double Once(Contender contender, string mode, int size)
    {
        string cmdline = Row.Invariant($"mode={mode} size={size} seconds={(bench.Short ? 1 : 2)} tsc_khz={bench.TscKhz}");
        using Launch run = Launch.Start(
            ["ip", "netns", "exec", _namespace, .. contender.Command(bench.Guest("net"), cmdline, tap: Tap)], TimeSpan.FromSeconds(60));
        using Process? flood = mode is "receive" ? StartFlood(run) : null;
        try
        {
            int code = run.WaitForEnd();
            if (code != contender.Success)
            {
                throw run.Failed($"exit code {code}, not {contender.Success}");
            }
        }
        finally
        {
            flood?.Kill();
            flood?.WaitForExit();
        }

        IReadOnlyDictionary<string, string> result = Bench.Result(run, "net");
        return double.Parse(result["frames"], CultureInfo.InvariantCulture) * 1e6 / double.Parse(
            result["us"], CultureInfo.InvariantCulture);
    }

    private Process StartFlood(Launch run)
    {
        run.WaitFor("READY");
        string self = Environment.ProcessPath!;
        List<string> words = ["netns", "exec", _namespace, self];
        if (Path.GetFileNameWithoutExtension(self) is "dotnet")
        {
            words.Add(typeof(NetBench).Assembly.Location);
        }

        return Process.Start(new ProcessStartInfo("ip", [.. words, "flood"]) { UseShellExecute = false })!;
    }

    internal static void Ip(params string[] words)
    {
        using Process ip = Process.Start(new ProcessStartInfo("ip", words) { UseShellExecute = false, RedirectStandardError = true })!;
        string errors = ip.StandardError.ReadToEnd();
        ip.WaitForExit();
        if (ip.ExitCode != 0)
        {
            throw new InvalidOperationException($"ip {string.Join(' ', words)}: {errors.Trim()}");
        }
    }
}
