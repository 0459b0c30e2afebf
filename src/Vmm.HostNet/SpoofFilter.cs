using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;

namespace Vmm.HostNet;

/// <summary>
/// What a guest may send, as a program of classic BPF that the kernel runs on each frame the guest's tap brings in (tc, direct action). It
/// holds the guest to its MAC address, in Ethernet and in ARP, and with addresses also to those: as source of IPv4 and IPv6, as sender in
/// ARP and in neighbour advertisements. Asking for an address (DHCP, probes of 0.0.0.0, ::) and link-local IPv6 made from the MAC stay
/// possible; router advertisements, redirects and answers of DHCPv6 servers do not. VLAN tags are the host's to give: frames with one are
/// dropped.
/// </summary>
/// <remarks>Offsets: IEEE 802.3, RFC 791, RFC 768, RFC 826, RFC 903, RFC 8200, RFC 4861. To be dropped: RFC 6105, RFC 7610.</remarks>
internal static class SpoofFilter
{
    /// <summary>Bytes of an instruction: struct sock_filter.</summary>
    internal const int InstructionLength = 8;

    private const ushort Ipv4 = 0x0800, Arp = 0x0806, Rarp = 0x8035, Ipv6 = 0x86DD, Vlan = 0x8100, ProviderVlan = 0x88A8;
    private const int TypeAt = 12, BodyAt = 14, SourceMacAt = 6;
    private const int Udp = 17, Icmpv6 = 58, HopByHop = 0, Routing = 43, Fragment = 44, Destination = 60, Mobility = 135;
    private const int Solicitation = 135, Advertisement = 136, RouterSolicitation = 133, RouterAdvertisement = 134, Redirect = 137;
    private const int DhcpServer = 67, Dhcpv6Server = 547;

    /// <summary>The program.</summary>
    /// <param name="mac">The guest's MAC address, 6 bytes.</param>
    /// <param name="addresses">Addresses that it may use; none: any.</param>
    /// <param name="served">
    /// Whoever routes and gives addresses there has link-local addresses made from MAC addresses: others than those may be the guest's own,
    /// as many systems make them (RFC 7217). And no guest answers DHCP.
    /// </param>
    internal static byte[] Build(ReadOnlySpan<byte> mac, IReadOnlyList<IPAddress> addresses, bool served = false)
    {
        BpfProgram program = new();
        byte[] own = mac.ToArray();
        program.LoadVlanPresent();
        program.DropUnlessEqual(0);
        CheckMac(program, SourceMacAt, own);
        program.LoadHalf(TypeAt);
        program.OnEqual(Arp, () => CheckArp(program, own, Of(addresses, AddressFamily.InterNetwork), addresses.Count == 0));
        program.OnEqual(Rarp, () => CheckRarp(program, own));
        if (addresses.Count > 0)
        {
            program.OnEqual(Ipv4, () => CheckIpv4(program, Of(addresses, AddressFamily.InterNetwork), served));
            program.OnEqual(Ipv6, () => CheckIpv6(program,
                [Ipv6Prefix.LinkLocal(own).GetAddressBytes(), .. Of(addresses, AddressFamily.InterNetworkV6)], served));
            program.Drop();
        }

        program.DropIfEqual(Vlan);
        program.DropIfEqual(ProviderVlan);
        program.Accept();
        return program.Bytes;
    }

    private static byte[][] Of(IReadOnlyList<IPAddress> addresses, AddressFamily family) =>
        [.. addresses.Where(address => address.AddressFamily == family).Select(address => address.GetAddressBytes())];

    private static void CheckMac(BpfProgram program, int at, byte[] mac)
    {
        program.LoadWord(at);
        program.DropUnlessEqual(BinaryPrimitives.ReadUInt32BigEndian(mac));
        program.LoadHalf(at + 4);
        program.DropUnlessEqual(BinaryPrimitives.ReadUInt16BigEndian(mac.AsSpan(4)));
    }

    private static void CheckArp(BpfProgram program, byte[] mac, byte[][] addresses, bool any)
    {
        program.LoadWord(BodyAt);
        program.DropUnlessEqual(0x0001_0800); // Ethernet, IPv4
        program.LoadHalf(BodyAt + 4);
        program.DropUnlessEqual(0x0604);
        CheckMac(program, BodyAt + 8, mac);
        if (any)
        {
            program.Accept();
            return;
        }

        program.LoadWord(BodyAt + 14);
        program.OnEqual(0, program.Accept);
        AcceptIfAny(program, BodyAt + 14, addresses);
        program.Drop();
    }

    // What tells where a VM is that came from elsewhere: it names no address but the MAC.
    private static void CheckRarp(BpfProgram program, byte[] mac)
    {
        CheckMac(program, BodyAt + 8, mac);
        CheckMac(program, BodyAt + 18, mac);
        program.Accept();
    }

    private static void CheckIpv4(BpfProgram program, byte[][] addresses, bool served)
    {
        BpfLabel known = new();
        program.GoIfAny(BodyAt + 12, addresses, known);
        program.LoadWord(BodyAt + 12);
        program.DropUnlessEqual(0); // a client of DHCP that has none yet: RFC 2131 section 4.1
        program.LoadWord(BodyAt + 16);
        program.DropUnlessEqual(uint.MaxValue);
        program.LoadByte(BodyAt + 9);
        program.DropUnlessEqual(Udp);
        program.LoadHalf(BodyAt + 6);
        program.DropUnlessNone(0x1fff); // the first fragment
        program.LoadHeaderLength(BodyAt);
        program.LoadHalfBehindHeader(BodyAt + 2);
        program.DropUnlessEqual(DhcpServer);
        program.Accept();
        program.Mark(known);
        if (served)
        {
            program.LoadByte(BodyAt + 9);
            program.OnEqual(Udp, () => CheckIpv4Udp(program));
        }

        program.Accept();
    }

    private static void CheckIpv4Udp(BpfProgram program)
    {
        program.LoadHalf(BodyAt + 6);
        program.OnAny(0x1fff, program.Accept); // not the first fragment: nothing without that
        program.LoadByte(BodyAt);
        program.OnEqual(0x45, () => // a header without options
        {
            program.LoadHalf(BodyAt + 20);
            program.DropIfEqual(DhcpServer);
            program.Accept();
        });
        program.LoadHeaderLength(BodyAt);
        program.LoadHalfBehindHeader(BodyAt);
        program.DropIfEqual(DhcpServer);
        program.Accept();
    }

    private static void CheckIpv6(BpfProgram program, byte[][] addresses, bool served)
    {
        const int source = BodyAt + 8, next = BodyAt + 6, payload = BodyAt + 40;
        BpfLabel known = new(), none = new();
        program.GoIfAny(source, [new byte[16]], none);
        program.GoIfAny(source, addresses, known);
        GoIfOtherLinkLocal(program, source, served, known);
        program.Drop();
        program.Mark(none); // it has no address yet: RFC 4862 section 5.4, RFC 4861 section 4.1
        program.LoadByte(next);
        program.OnEqual(HopByHop, () => CheckReport(program, payload));
        program.DropUnlessEqual(Icmpv6);
        program.LoadByte(payload);
        program.OnEqual(RouterSolicitation, program.Accept);
        program.DropUnlessEqual(Solicitation);
        CheckTarget(program, payload + 8, addresses, served);
        program.Mark(known);
        program.LoadByte(next);
        program.OnEqual(Icmpv6, () =>
        {
            program.LoadByte(payload);
            program.DropIfEqual(RouterAdvertisement);
            program.DropIfEqual(Redirect);
            program.OnEqual(Advertisement, () => CheckTarget(program, payload + 8, addresses, served));
            program.Accept();
        });
        program.OnEqual(Udp, () => CheckIpv6Udp(program, payload));
        program.OnEqual(HopByHop, () => CheckReport(program, payload));
        program.OnEqual(Fragment, () => CheckFragment(program, payload));
        program.DropIfEqual(Routing);
        program.DropIfEqual(Destination);
        program.DropIfEqual(Mobility);
        program.Accept();
    }

    private static void CheckIpv6Udp(BpfProgram program, int at)
    {
        program.LoadHalf(at);
        program.DropIfEqual(Dhcpv6Server);
        program.Accept();
    }

    // Options for every hop: reports of group membership only, nothing that hides the above.
    private static void CheckReport(BpfProgram program, int at)
    {
        program.LoadHalf(at);
        program.DropUnlessEqual(Icmpv6 << 8); // ICMPv6 behind 8 bytes
        program.LoadByte(at + 8);
        program.OnEqual(131, program.Accept);
        program.OnEqual(132, program.Accept);
        program.OnEqual(143, program.Accept);
        program.Drop();
    }

    // Neighbour discovery is never fragmented (RFC 6980). A fragment that is not the first is nothing without that.
    private static void CheckFragment(BpfProgram program, int at)
    {
        program.LoadHalf(at + 2);
        program.OnAny(0xfff8, program.Accept);
        program.LoadByte(at);
        program.OnEqual(Udp, () => CheckIpv6Udp(program, at + 8));
        program.OnEqual(Icmpv6, () =>
        {
            program.LoadByte(at + 8);
            for (uint type = RouterSolicitation; type <= Redirect; type++)
            {
                program.DropIfEqual(type);
            }

            program.Accept();
        });
        foreach (uint header in (ReadOnlySpan<uint>)[HopByHop, Routing, Fragment, Destination, Mobility])
        {
            program.DropIfEqual(header);
        }

        program.Accept();
    }

    // Whose address a neighbour message tells.
    private static void CheckTarget(BpfProgram program, int at, byte[][] addresses, bool served)
    {
        BpfLabel own = new();
        program.GoIfAny(at, addresses, own);
        GoIfOtherLinkLocal(program, at, served, own);
        program.Drop();
        program.Mark(own);
        program.Accept();
    }

    // Of fe80::/64 and not made from a MAC address, which has ff:fe in its middle: that of another guest, or of the router.
    private static void GoIfOtherLinkLocal(BpfProgram program, int at, bool served, BpfLabel label)
    {
        if (!served)
        {
            return;
        }

        program.LoadWord(at);
        program.OnEqual(0xFE80_0000, () =>
        {
            program.LoadWord(at + 4);
            program.DropUnlessEqual(0);
            program.LoadHalf(at + 11);
            program.DropIfEqual(0xFFFE);
            program.Go(label);
        });
    }

    private static void AcceptIfAny(BpfProgram program, int at, byte[][] addresses)
    {
        BpfLabel known = new(), over = new();
        program.GoIfAny(at, addresses, known);
        program.Go(over);
        program.Mark(known);
        program.Accept();
        program.Mark(over);
    }
}
