using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Vmm.HostNet;
using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>User-mode networking: passt in a namespace of the test's own, which is its host, with net.elf behind it.</summary>
[Trait("Tier", "kvm")]
[Collection("Machines with net0")] // threads of the process are looked for by their names
public sealed class UserNetTests
{
    private static readonly IPEndPoint s_echo = new(IPAddress.Parse("192.0.2.1"), 7007), s_end = new(s_echo.Address, 7009);

    [PasstFact(NeedsRoot = true)]
    public void Published_ports_lead_to_the_guest_and_again_when_passt_was_killed()
    {
        using TapNamespace network = Host();
        using Terminal terminal = new();
        using (VirtualMachine machine = network.Do(() => VirtualMachine.Create(
            GuestSpec("net") with
            {
                Boot = GuestSpec("net").Boot with { Cmdline = "host=1" },
                Nets = [Net("192.0.2.1:7007:7/udp", "192.0.2.1:7009:9/udp")],
            },
            terminal)))
        {
            Thread run = Start(machine, out Func<RunResult> result);
            terminal.WaitFor("READY");
            using Socket socket = Client(network);
            Exchange(socket);
            Process first = Assert.Single(Passts(network));
            first.Kill();
            first.WaitForExit(20_000);
            Assert.True(
                SpinWait.SpinUntil(() => Passts(network) is [{ } next] && next.Id != first.Id, 20_000), "passt is not started again");
            Exchange(socket);
            Assert.True(machine.Counters.Nets.Single().Counters.ReceivedPackets >= 2);
            socket.SendTo(new byte[8], s_end);
            Assert.True(run.Join(60_000));
            Assert.True(result().ExitCode == 0, terminal.Said);
        }

        Assert.True(SpinWait.SpinUntil(() => Passts(network).Count == 0, 20_000), "passt outlives its machine");
    }

    [PasstFact(NeedsRoot = true)]
    public void What_keeps_passt_from_starting_is_told()
    {
        using TapNamespace network = Host();
        Assert.Contains("192.0.2.77/8080:80", Refusal("192.0.2.77:8080:80"), StringComparison.Ordinal);
        using TapNamespace nowhere = new();
        Assert.Contains("the host needs a default route", Refusal("80:80", nowhere), StringComparison.Ordinal);
        Assert.Empty(Passts(network));

        string Refusal(string port, TapNamespace? other = null) =>
            Assert.Throws<HostNetException>(() => (other ?? network).Do(() => new PasstProcess(Net(port)).Start())).Message;
    }

    [Fact]
    public void A_program_that_is_no_passt_is_told_and_ended()
    {
        Assert.Contains("start /nowhere/passt", Assert.Throws<HostNetException>(
            () => new PasstProcess(Net()) { Program = "/nowhere/passt" }.Start()).Message, StringComparison.Ordinal);
        Assert.Contains("passt does not start: it does not say why", Assert.Throws<HostNetException>(
            () => new PasstProcess(Net()) { Program = "/bin/false" }.Start()).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_guest_does_not_reach_the_loopback_of_the_host()
    {
        IEnumerable<string> words = new PasstProcess(Net("[::1]:53:5353/udp", "2222:22") with { Mtu = 1400 }).Arguments();
        Assert.Contains("--no-map-gw", words);
        Assert.Equal("--mtu 1400", string.Join(' ', words.SkipWhile(w => w is not "--mtu").Take(2)));
        Assert.Equal(
            "--udp-ports ::1/53:5353 --tcp-ports 127.0.0.1/2222:22", string.Join(' ', words.SkipWhile(w => w is not "--udp-ports")));
    }

    [Theory]
    [InlineData("nameserver 127.0.0.53\n", "nameserver 192.0.2.7\nnameserver 192.0.2.7\nnameserver fe80::1%eth0\n", "192.0.2.7")]
    [InlineData("nameserver 192.0.2.1\nnameserver ::1\nnameserver 2001:db8::1 # x\n", "nameserver 192.0.2.7\n", "192.0.2.1 2001:db8::1")]
    [InlineData("nameserver\nnameserver x\n\u0001\nnameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\nnameserver 4.4.4.4\n", "",
        "1.1.1.1 2.2.2.2 3.3.3.3")]
    [InlineData("", "", "")]
    public void Name_servers_are_those_that_the_guest_can_reach(string usual, string behind, string expected)
    {
        DirectoryInfo root = Directory.CreateTempSubdirectory("vmm-resolv");
        try
        {
            Directory.CreateDirectory(Path.Join(root.FullName, "etc"));
            Directory.CreateDirectory(Path.Join(root.FullName, "run/systemd/resolve"));
            File.WriteAllText(Path.Join(root.FullName, "etc/resolv.conf"), usual);
            if (behind.Length > 0)
            {
                File.WriteAllText(Path.Join(root.FullName, "run/systemd/resolve/resolv.conf"), behind);
            }

            Assert.Equal(expected, string.Join(' ', HostResolvers.Find(root.FullName)));
        }
        finally
        {
            root.Delete(recursive: true);
        }
    }

    [Fact]
    public void What_passt_says_is_one_line_of_it()
    {
        Assert.Equal("Failed to bind any port for '-t 1:1', exiting", PasstProcess.Reason(
            "Failed to send 3 bytes to syslog\nDon't run as root.\n\nFailed to bind any port for '-t 1:1', exiting\n"u8));
        Assert.Equal("a  b; c", PasstProcess.Reason("x\na\u001b\u0007b\nc"u8));
        Assert.Equal(400, PasstProcess.Reason(new byte[5000].Select(_ => (byte)'a').ToArray()).Length);
    }

    private static NetSpec Net(params string[] publish) => new() { User = new UserNetSpec { Publish = publish } };

    // What passt takes for its host: a default route, and a second address for whoever talks to the guest.
    private static TapNamespace Host()
    {
        TapNamespace network = new();
        network.Do(() =>
        {
            TapNamespace.Ip("link", "set", "lo", "up");
            TapNamespace.Ip("addr", "add", "192.0.2.50/24", "dev", "vmtap0");
            TapNamespace.Ip("route", "add", "default", "via", "192.0.2.254");
            return 0;
        });
        return network;
    }

    private static Socket Client(TapNamespace network)
    {
        Socket socket = network.Udp();
        socket.ReceiveTimeout = 500;
        socket.Bind(new IPEndPoint(IPAddress.Parse("192.0.2.50"), 0));
        return socket;
    }

    // While passt is away, what is sent is lost.
    private static void Exchange(Socket socket)
    {
        byte[] packet = new byte[1000], answer = new byte[2000];
        new Random(3).NextBytes(packet);
        long begin = Stopwatch.GetTimestamp();
        while (true)
        {
            try
            {
                socket.SendTo(packet, s_echo);
                Assert.Equal(packet, answer.AsSpan(0, socket.Receive(answer)).ToArray());
                return;
            }
            catch (SocketException cause) when (cause.SocketErrorCode is SocketError.TimedOut or SocketError.ConnectionRefused)
            {
                Assert.True(Stopwatch.GetElapsedTime(begin).TotalSeconds < 20, "the guest does not answer");
            }
        }
    }

    private static List<Process> Passts(TapNamespace network)
    {
        string own = network.Do(() => Link("/proc/thread-self/ns/net"))!;
        return [.. Process.GetProcesses().Where(p => p.ProcessName.StartsWith("passt", StringComparison.Ordinal)
            && string.Equals(Link($"/proc/{p.Id}/ns/net"), own, StringComparison.Ordinal))];
    }

    private static string? Link(string path)
    {
        try
        {
            return new FileInfo(path).LinkTarget;
        }
        catch (IOException)
        {
            return null; // it has ended
        }
    }
}
