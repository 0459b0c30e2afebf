using System.Diagnostics;
using System.Net.Sockets;
using Vmm.HostNet;
using Vmm.Interop;
using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>Taps that are made on a bridge, in a namespace of the test's own; what they let by is seen at another port.</summary>
[Trait("Tier", "kvm")]
[Collection("Machines with net0")] // threads of the process are looked for by their names
public sealed class BridgeNetTests
{
    private const string Mac = "52:54:00:00:00:02", Nobody = "00000000000000000000000000000000";
    private const StringComparison Exact = StringComparison.Ordinal;
    private static readonly byte[] s_own = [0x52, 0x54, 0, 0, 0, 2], s_other = [0x52, 0x54, 0, 0, 0, 3];
    private static readonly string s_linkLocal = "fe800000000000005054 00fffe000002".Replace(" ", "", StringComparison.Ordinal);

    [KvmFact(NeedsRoot = true)]
    public void A_machine_on_a_bridge_is_reached_and_its_tap_goes_with_it()
    {
        using TapNamespace network = Host();
        using Terminal terminal = new();
        using (VirtualMachine machine = network.Do(() => VirtualMachine.Create(
            GuestSpec("net") with { Nets = [new NetSpec { Bridge = "br0", Mac = Mac, AntiSpoof = true, Addresses = ["192.0.2.2"] }] },
            terminal)))
        {
            Thread run = Start(machine, out Func<RunResult> result);
            terminal.WaitFor("READY mac=" + Mac);
            string link = Ip(network, "-d", "link", "show", "vmm0");
            Assert.Contains("master br0", link, StringComparison.Ordinal);
            Assert.Contains($"alias vmm-run {Environment.ProcessId}", link, StringComparison.Ordinal);
            Assert.Contains("link/ether fe:", link, StringComparison.Ordinal);
            using Socket socket = network.Udp();
            byte[] answer = new byte[100];
            socket.SendTo(new byte[60], TapNamespace.Guest(7));
            Assert.Equal(60, socket.Receive(answer));
            socket.SendTo(new byte[8], TapNamespace.Guest(9));
            Assert.True(run.Join(60_000));
            Assert.True(result().ExitCode == 0, terminal.Said);
        }

        Assert.True(
            SpinWait.SpinUntil(() => !Ip(network, "link", "show").Contains("vmm0", StringComparison.Ordinal), 20_000), "the tap is left");
    }

    [KvmFact(NeedsRoot = true)]
    public void What_is_wrong_with_a_bridge_is_told_and_nothing_is_left()
    {
        using TapNamespace network = Host();
        string before = Names();
        Assert.Contains("'ip link add br9 type bridge'", Refusal(new NetSpec { Bridge = "br9" }), StringComparison.Ordinal);
        Assert.Contains("vmtap0 is no bridge", Refusal(new NetSpec { Bridge = "vmtap0" }), StringComparison.Ordinal);
        Assert.Contains("MTU of 1500, which is less than the 9000", Refusal(new NetSpec { Bridge = "br0", Mtu = 9000 }),
            StringComparison.Ordinal);
        Assert.Contains("does not separate VLANs", Refusal(new NetSpec { Bridge = "br0", Vlan = 5 }), StringComparison.Ordinal);
        Assert.Equal(before, Names());

        string Names() =>
            string.Join(' ', Ip(network, "-o", "link", "show").Split('\n').Select(line => line.Split(':').ElementAtOrDefault(1)));

        string Refusal(NetSpec net) => Assert.Throws<HostNetException>(() => network.Do(() => BridgeTap.Open(net, "x"))).Message;
    }

    [KvmFact(NeedsRoot = true)]
    public void The_bridge_keeps_its_address_and_mtu()
    {
        using TapNamespace network = Host();
        string before = Bridge();
        IReadOnlyList<TapQueue> queues = network.Do(() => BridgeTap.Open(new NetSpec { Bridge = "br0", Mtu = 1400, Queues = 4 }, "x"));
        Assert.Equal(4, queues.Count);
        Assert.Equal(before, Bridge());
        foreach (TapQueue queue in queues)
        {
            queue.Dispose();
        }

        string Bridge() => string.Join(' ', Ip(network, "link", "show", "br0").Split([' ', '\n'], StringSplitOptions.RemoveEmptyEntries)
            .SkipWhile(word => word is not "mtu").Where((word, at) => at < 2 || word.Contains(':', StringComparison.Ordinal)));
    }

    [VlanFact(NeedsRoot = true)]
    public void A_guest_is_in_its_vlan_and_in_no_other()
    {
        using TapNamespace network = new();
        network.Do(() => Run("ip", "link", "add", "br0", "type", "bridge", "vlan_filtering", "1"));
        IReadOnlyList<TapQueue> tap = network.Do(() => BridgeTap.Open(new NetSpec { Bridge = "br0", Vlan = 5 }, "x"));
        string vlans = network.Do(() => Run("bridge", "vlan", "show", "dev", tap[0].Name).Said);
        Assert.Contains("5 PVID Egress Untagged", vlans, StringComparison.Ordinal);
        Assert.DoesNotContain(" 1 ", vlans, StringComparison.Ordinal);
        tap[0].Dispose();
    }

    public static TheoryData<string, bool, bool> Frames => new()
    {
        // Of another MAC address; by ARP in another's name.
        { Ethernet(s_other, 0x0800) + Ipv4("c0000202"), false, false },
        { Ethernet(s_own, 0x0800) + Ipv4("c0000202"), true, true },
        { Ethernet(s_own, 0x0806) + Arp(s_own, "c0000202"), true, true },
        { Ethernet(s_own, 0x0806) + Arp(s_own, "00000000"), true, true },
        { Ethernet(s_own, 0x0806) + Arp(s_other, "c0000202"), false, false },
        { Ethernet(s_own, 0x0806) + Arp(s_own, "c0000203"), true, false },
        { Ethernet(s_own, 0x0806) + "0001", false, false },
        // Another's IPv4 address; asking for one.
        { Ethernet(s_own, 0x0800) + Ipv4("c0000203"), true, false },
        { Ethernet(s_own, 0x0800) + "4500", true, false },
        { Ethernet(s_own, 0x0800) + Ipv4("00000000", "ffffffff", "00440043"), true, true },
        { Ethernet(s_own, 0x0800) + Ipv4("00000000", "ffffffff", "00430044"), true, false },
        { Ethernet(s_own, 0x0800) + Ipv4("00000000", "c0000209", "00440043"), true, false },
        // IPv6.
        { Ethernet(s_own, 0x86DD) + Ipv6(6, s_linkLocal), true, true },
        { Ethernet(s_own, 0x86DD) + Ipv6(6, "20010db8000000000000000000000002"), true, true },
        { Ethernet(s_own, 0x86DD) + Ipv6(6, "20010db8000000000000000000000003"), true, false },
        { Ethernet(s_own, 0x86DD) + Ipv6(6, "fe800000000000000000000000000001"), true, false },
        // A solicitation: is this address free? Of its own, and of another's, who would not get it.
        { Ethernet(s_own, 0x86DD) + Ipv6(58, Nobody, "87", s_linkLocal), true, true },
        { Ethernet(s_own, 0x86DD) + Ipv6(58, Nobody, "87", "20010db8000000000000000000000002"), true, true },
        { Ethernet(s_own, 0x86DD) + Ipv6(58, Nobody, "87", "20010db8000000000000000000000003"), true, false },
        { Ethernet(s_own, 0x86DD) + Ipv6(58, Nobody, "85"), true, true }, // a solicitation of routers
        { Ethernet(s_own, 0x86DD) + Ipv6(58, Nobody, "80"), true, false },
        { Ethernet(s_own, 0x86DD) + Ipv6(17, Nobody, "02220223"), true, false },
        { Ethernet(s_own, 0x86DD) + Ipv6(0, Nobody, "3a000502000001008f"), true, true },
        // DHCPv6: of a client, of a server, of one behind a fragment header.
        { Ethernet(s_own, 0x86DD) + Ipv6(17, s_linkLocal, "02220223"), true, true },
        { Ethernet(s_own, 0x86DD) + Ipv6(17, s_linkLocal, "02230222"), true, false },
        { Ethernet(s_own, 0x86DD) + Ipv6(44, s_linkLocal, "1100000100000007" + "02220223"), true, true },
        { Ethernet(s_own, 0x86DD) + Ipv6(44, s_linkLocal, "1100000100000007" + "02230222"), true, false },
        { Ethernet(s_own, 0x86DD) + Ipv6(44, s_linkLocal, "1100000900000007" + "02230222"), true, true }, // in the middle of something
        { Ethernet(s_own, 0x86DD) + Ipv6(44, s_linkLocal, "3a00000100000007" + "8000"), true, true },
        { Ethernet(s_own, 0x86DD) + Ipv6(44, s_linkLocal, "3a00000100000007" + "8600"), true, false },
        { Ethernet(s_own, 0x86DD) + Ipv6(44, s_linkLocal, "3a00000100000007" + "8800"), true, false },
        { Ethernet(s_own, 0x86DD) + Ipv6(44, s_linkLocal, "2c00000100000007" + "8600"), true, false },
        { Ethernet(s_own, 0x86DD) + Ipv6(58, s_linkLocal, "86"), true, false }, // router advertisement
        { Ethernet(s_own, 0x86DD) + Ipv6(58, s_linkLocal, "89"), true, false }, // redirect
        { Ethernet(s_own, 0x86DD) + Ipv6(58, s_linkLocal, "88", s_linkLocal), true, true }, // an advertisement of its own
        { Ethernet(s_own, 0x86DD) + Ipv6(58, s_linkLocal, "88", "20010db8000000000000000000000003"), true, false },
        { Ethernet(s_own, 0x86DD) + Ipv6(0, s_linkLocal, "3a000502000001008f"), true, true }, // a report of group membership
        { Ethernet(s_own, 0x86DD) + Ipv6(0, s_linkLocal, "3a0005020000010088"), true, false },
        { Ethernet(s_own, 0x86DD) + Ipv6(60, s_linkLocal), true, false },
        // Tags, and what is neither.
        { Ethernet(s_own, 0x8100) + "00050800" + Ipv4("c0000202"), false, false },
        { Ethernet(s_own, 0x88A8) + "00050800" + Ipv4("c0000202"), false, false },
        { Ethernet(s_own, 0x88B5) + "00", true, false },
    };

    public static TheoryData<string, bool> FramesOnANetwork => new()
    {
        // A link-local address that is not made from a MAC address may be the guest's own; one that is, is another's or the router's.
        { Ethernet(s_own, 0x86DD) + Ipv6(6, "fe800000000000001234567890abcdef"), true },
        { Ethernet(s_own, 0x86DD) + Ipv6(6, "fe80000000000000fc0000fffe000001"), false },
        { Ethernet(s_own, 0x86DD) + Ipv6(6, "fe800000000000011234567890abcdef"), false },
        { Ethernet(s_own, 0x86DD) + Ipv6(6, "febf0000000000001234567890abcdef"), false },
        { Ethernet(s_own, 0x86DD) + Ipv6(6, "20010db8000000000000000000000003"), false },
        { Ethernet(s_own, 0x86DD) + Ipv6(58, s_linkLocal, "88", "fe800000000000001234567890abcdef"), true },
        { Ethernet(s_own, 0x86DD) + Ipv6(58, s_linkLocal, "88", "fe80000000000000fc0000fffe000001"), false },
        { Ethernet(s_own, 0x86DD) + Ipv6(58, Nobody, "87", "fe800000000000001234567890abcdef"), true },
        { Ethernet(s_own, 0x86DD) + Ipv6(58, Nobody, "87", "fe80000000000000fc0000fffe000001"), false },
        { Ethernet(s_own, 0x86DD) + Ipv6(58, "fe800000000000001234567890abcdef", "86"), false },
        { Ethernet(s_own, 0x86DD) + Ipv6(17, "fe800000000000001234567890abcdef", "02230222"), false },
        // DHCP: of a client with an address, of a server, with options in its header, in the middle of something.
        { Ethernet(s_own, 0x0800) + Ipv4("c0000202", "c0000209", "00440043"), true },
        { Ethernet(s_own, 0x0800) + Ipv4("c0000202", "ffffffff", "00430044"), false },
        { Ethernet(s_own, 0x0800) + "46" + Ipv4("c0000202", "ffffffff", "0101010100430044")[2..], false },
        { Ethernet(s_own, 0x0800) + "46" + Ipv4("c0000202", "ffffffff", "0101010100440043")[2..], true },
        { Ethernet(s_own, 0x0800) + Ipv4("c0000202", "ffffffff", "00430044").Replace("4500004000000000", "4500004000000001", Exact), true },
        { Ethernet(s_own, 0x0800) + Ipv4("c0000203", "c0000209", "00440043"), false },
        { Ethernet(s_own, 0x0806) + Arp(s_own, "c0000203"), false },
    };

    [KvmFact(NeedsRoot = true)]
    public void A_guest_of_a_private_network_is_no_server_and_no_router_there()
    {
        using TapNamespace network = Host();
        using Peer guest = new(
            network, new NetSpec { Bridge = "br0", Mac = Mac, AntiSpoof = true, Addresses = ["192.0.2.2", "2001:db8::2"] }, served: true);
        foreach (object[] row in FramesOnANetwork)
        {
            Assert.True(guest.Passes(Convert.FromHexString((string)row[0])) == (bool)row[1], $"{row[0]}: {!(bool)row[1]}");
        }

        foreach (object[] row in Frames.Where(row => !((string)row[0]).Contains("fe800000000000000000000000000001", Exact)))
        {
            Assert.True(guest.Passes(Convert.FromHexString((string)row[0])) == (bool)row[2], $"as on a bridge, {row[0]}: {!(bool)row[2]}");
        }
    }

    [KvmFact(NeedsRoot = true)]
    public void A_frame_goes_by_the_filter_only_when_it_may()
    {
        using TapNamespace network = Host();
        NetSpec net = new() { Bridge = "br0", Mac = Mac, AntiSpoof = true };
        using Peer macOnly = new(network, net), addresses = new(network, net with { Addresses = ["192.0.2.2", "2001:db8::2"] });
        foreach (object[] row in Frames)
        {
            byte[] frame = Convert.FromHexString((string)row[0]);
            Assert.True(macOnly.Passes(frame) == (bool)row[1], $"by MAC, {row[0]}: {!(bool)row[1]}");
            Assert.True(addresses.Passes(frame) == (bool)row[2], $"by address, {row[0]}: {!(bool)row[2]}");
        }
    }

    private static string Ethernet(byte[] from, int type) => "ffffffffffff" + Convert.ToHexString(from) + type.ToString("x4");

    private static string Arp(byte[] mac, string address) =>
        "0001080006040001" + Convert.ToHexString(mac) + address + "000000000000c0000209";

    private static string Ipv4(string from, string to = "c0000209", string ports = "00070007") =>
        "45000040000000004011" + "0000" + from + to + ports + new string('0', 88);

    private static string Ipv6(int next, string from, string payload = "", string target = "") =>
        "600000000040" + next.ToString("x2") + "ff" + from + "ff0200000000000000000000000000 01".Replace(" ", "", StringComparison.Ordinal)
            + (payload.Length > 2 ? payload : payload.PadRight(16, '0')).PadRight(16, '0') + target.PadRight(96, '0');

    private static TapNamespace Host()
    {
        TapNamespace network = new();
        network.Do(() =>
        {
            TapNamespace.Ip("link", "add", "br0", "type", "bridge");
            TapNamespace.Ip("addr", "del", "192.0.2.1/24", "dev", "vmtap0");
            TapNamespace.Ip("addr", "add", "192.0.2.1/24", "dev", "br0");
            TapNamespace.Ip("link", "set", "br0", "up");
            TapNamespace.Ip("link", "set", "vmtap0", "master", "br0");
            return 0;
        });
        return network;
    }

    private static string Ip(TapNamespace network, params string[] words) => network.Do(() => Run("ip", words).Said);

    private static (bool Done, string Said) Run(string program, params string[] words)
    {
        using Process process = Process.Start(
            new ProcessStartInfo(program, words) { RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false })!;
        string said = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode == 0, said);
    }

    /// <summary>A test of VLANs on a bridge; skipped, with the reason, where the kernel was built without.</summary>
    [AttributeUsage(AttributeTargets.Method)]
    private sealed class VlanFactAttribute : KvmFactAttribute
    {
        private static readonly Lazy<bool> s_has = new(
            () => Run("unshare", "--net", "ip", "link", "add", "br0", "type", "bridge", "vlan_filtering", "1").Done);

        public override string? Skip
        {
            get => base.Skip ?? (s_has.Value ? null : "this kernel has bridges without VLANs");
            set => base.Skip = value;
        }
    }

    /// <summary>A tap with a filter on a bridge of its own, and another port where its frames come out.</summary>
    private sealed class Peer : IDisposable
    {
        private static readonly byte[] s_last = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, .. s_own, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2, .. s_own,
            192, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        private readonly TapQueue _guest, _port;
        private readonly NativeArray<byte> _bytes = new(2048);
        private readonly NativeArray<IoVector> _vector = new(1);

        internal Peer(TapNamespace network, NetSpec net, bool served = false)
        {
            string name = net.Addresses is null ? "brm" : "bra";
            (_guest, _port) = network.Do(() =>
            {
                TapNamespace.Ip("link", "add", name, "type", "bridge", "mcast_snooping", "0");
                foreach (string rules in Directory.GetFiles("/proc/sys/net", "bridge-nf-call-*", SearchOption.AllDirectories))
                {
                    File.WriteAllText(rules, "0"); // where the kernel looks at packets of bridges, it drops those that are no good ones
                }

                TapNamespace.Ip("link", "set", name, "up");
                return (BridgeTap.Open(net with { Bridge = name }, "x", served: served)[0],
                    BridgeTap.Open(new NetSpec { Bridge = name }, "x")[0]);
            });
        }

        /// <summary>Whether a frame of the guest comes out; one that always does goes behind it.</summary>
        internal bool Passes(byte[] frame)
        {
            Write(frame);
            Write(s_last);
            bool seen = false;
            for (int i = 0; i < 5000; i++)
            {
                byte[]? read = Read();
                seen |= read is not null && read.AsSpan().SequenceEqual(frame);
                if (read is not null && read.AsSpan().SequenceEqual(s_last))
                {
                    return seen;
                }

                Thread.Sleep(read is null ? 1 : 0);
            }

            throw new TimeoutException("nothing comes out of the bridge");
        }

        public void Dispose()
        {
            _guest.Dispose();
            _port.Dispose();
            _bytes.Dispose();
            _vector.Dispose();
        }

        private void Write(byte[] frame)
        {
            _bytes.Span.Clear();
            frame.CopyTo(_bytes.Span[12..]);
            _vector.Span[0] = new IoVector(_bytes.AddressOf(0), (nuint)(12 + frame.Length));
            TapFrame[] one = [new TapFrame(_vector.AddressOf(0), 1)];
            Assert.Equal(1, _guest.Write(one));
            Assert.Equal(12 + frame.Length, one[0].Result);
        }

        private byte[]? Read()
        {
            _vector.Span[0] = new IoVector(_bytes.AddressOf(0), 2048);
            TapFrame[] one = [new TapFrame(_vector.AddressOf(0), 1)];
            return _port.Read(one) == 1 ? _bytes.Span[12..(int)one[0].Result].ToArray() : null;
        }
    }
}
