using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace Vmm.Perf;

/// <summary>
/// (f) user-mode networking: datagrams a second that a client on the host has echoed by the network micro-guest, through the same passt;
/// in a network namespace of its own.
/// </summary>
internal sealed class UserNetBench(Bench bench)
{
    /// <summary>Ports of the host, passt's words for them, that lead to the guest's echo and to its end.</summary>
    internal const string EchoPort = "7007:7", EndPort = "7009:9";

    /// <summary>Where they are published.</summary>
    internal const string HostAddress = "192.0.2.1"; // the guest has the host's own

    private const string ClientAddress = "192.0.2.50", Tap = "vmmtap0";
    private const int Window = 32, Size = 1400;

    private readonly string _namespace = Row.Invariant($"vmmuser{Environment.ProcessId}");
    private readonly string _socket = Path.Combine(Path.GetTempPath(), Row.Invariant($"vmm-perf-{Environment.ProcessId}.passt"));

    /// <summary>Debian's passt is there.</summary>
    internal static bool IsPossible => Environment.IsPrivilegedProcess && File.Exists("/usr/bin/passt") && File.Exists("/dev/net/tun");

    internal void Run(Report report)
    {
        NetBench.Ip("netns", "add", _namespace);
        try
        {
            NetBench.Ip("-n", _namespace, "link", "set", "lo", "up");
            NetBench.Ip("-n", _namespace, "tuntap", "add", "dev", Tap, "mode", "tap");
            NetBench.Ip("-n", _namespace, "addr", "add", HostAddress + "/24", "dev", Tap);
            NetBench.Ip("-n", _namespace, "link", "set", Tap, "up");
            NetBench.Ip("-n", _namespace, "addr", "add", ClientAddress + "/24", "dev", Tap);
            NetBench.Ip("-n", _namespace, "route", "add", "default", "via", "192.0.2.254");
            Dictionary<Contender, List<double>> rates = bench.Empty();
            bench.InTurn(bench.Short ? 1 : bench.AgainstItself ? 10 : 5, contender => rates[contender].Add(Once(contender)));
            report.Add(bench.Row(
                Row.Invariant($"(f) user-mode network by passt, {Size} bytes echoed, {Window} on their way"), "datagrams/s", rates) with
            {
                AtLeast = 1
            });
        }
        finally
        {
            NetBench.Ip("netns", "del", _namespace);
            File.Delete(_socket);
        }
    }

    /// <summary>The client: keeps datagrams on their way, counts those that come back, then ends the guest.</summary>
    internal static int Echo(int seconds)
    {
        using Socket socket = new(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp) { ReceiveTimeout = 200 };
        socket.Bind(new IPEndPoint(IPAddress.Parse(ClientAddress), 0));
        IPEndPoint echo = PortOf(EchoPort), end = PortOf(EndPort);
        byte[] packet = new byte[Size], answer = new byte[2 * Size];
        Exchange(socket, echo, packet, answer, TimeSpan.FromSeconds(1)); // whoever has to wake up is awake
        Console.WriteLine(Exchange(socket, echo, packet, answer, TimeSpan.FromSeconds(seconds)).ToString(CultureInfo.InvariantCulture));
        for (int i = 0; i < 3; i++)
        {
            socket.SendTo(packet, end);
        }

        return 0;
    }

    private static double Exchange(Socket socket, IPEndPoint to, byte[] packet, byte[] answer, TimeSpan time)
    {
        long count = 0, begin = Stopwatch.GetTimestamp();
        int onTheirWay = 0;
        while (Stopwatch.GetElapsedTime(begin) < time)
        {
            try
            {
                for (; onTheirWay < Window; onTheirWay++)
                {
                    socket.SendTo(packet, to);
                }

                socket.Receive(answer);
                onTheirWay--;
                count++;
            }
            catch (SocketException cause) when (cause.SocketErrorCode is SocketError.TimedOut or SocketError.ConnectionRefused)
            {
                onTheirWay = 0; // lost
            }
        }

        return count / Stopwatch.GetElapsedTime(begin).TotalSeconds;
    }

    private static IPEndPoint PortOf(string published) => new(
        IPAddress.Parse(HostAddress), int.Parse(published.AsSpan(0, published.IndexOf(':', StringComparison.Ordinal)),
            CultureInfo.InvariantCulture));

    private double Once(Contender contender)
    {
        using Process? passt = contender is QemuMicrovm ? StartPasst() : null;
        try
        {
            string[] command = contender.Command(bench.Guest("net"), Row.Invariant($"mode=answer host=1 tsc_khz={bench.TscKhz}"),
                passt: _socket);
            using Launch run = Launch.Start(["ip", "netns", "exec", _namespace, .. command], TimeSpan.FromSeconds(90));
            run.WaitFor("READY");
            double rate = Client();
            int code = run.WaitForEnd();
            return code == contender.Success ? rate : throw run.Failed($"exit code {code}, not {contender.Success}");
        }
        finally
        {
            passt?.Kill(entireProcessTree: true);
            passt?.WaitForExit();
            File.Delete(_socket);
        }
    }

    // As our own is started, but for the socket.
    private Process StartPasst()
    {
        File.Delete(_socket);
        Process passt = Process.Start(new ProcessStartInfo("ip",
        [
            "netns", "exec", _namespace, "/usr/bin/passt", "--foreground", "--socket", _socket, "--quiet", "--no-map-gw", "--mtu", "65520",
            "--udp-ports", $"{HostAddress}/{EchoPort}", "--udp-ports", $"{HostAddress}/{EndPort}",
        ]) { UseShellExecute = false, RedirectStandardError = true })!;
        return SpinWait.SpinUntil(() => File.Exists(_socket) || passt.HasExited, 10_000) && !passt.HasExited
            ? passt
            : throw new InvalidOperationException($"passt does not start: {passt.StandardError.ReadToEnd()}");
    }

    private double Client()
    {
        string self = Environment.ProcessPath!;
        List<string> words = ["netns", "exec", _namespace, self];
        if (Path.GetFileNameWithoutExtension(self) is "dotnet")
        {
            words.Add(typeof(UserNetBench).Assembly.Location);
        }

        using Process client = Process.Start(new ProcessStartInfo("ip", [.. words, "echo", bench.Short ? "1" : "3"])
        {
            UseShellExecute = false,
            RedirectStandardOutput = true,
        })!;
        string said = client.StandardOutput.ReadToEnd();
        client.WaitForExit();
        return double.Parse(said, CultureInfo.InvariantCulture);
    }
}
