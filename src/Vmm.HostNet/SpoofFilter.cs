using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;

namespace Vmm.HostNet;

/// <summary>
/// What a guest may send, as a program of classic BPF that the kernel runs on each frame the guest's tap brings in (tc, direct action). It
/// holds the guest to its MAC address, in Ethernet and in ARP, and with addresses also to those: as source of IPv4 and IPv6, as sender in
/// ARP and in neighbour advertisements. Asking for an address (DHCP, probes of 0.0.0.0, ::) and link-local IPv6 made from the MAC stay
/// possible; router advertisements and redirects do not. VLAN tags are the host's to give: frames with one are dropped.
/// </summary>
/// <remarks>Offsets: IEEE 802.3, RFC 791, RFC 826, RFC 8200, RFC 4861.</remarks>
internal static class SpoofFilter
{
    /// <summary>Bytes of an instruction: struct sock_filter.</summary>
    internal const int InstructionLength = 8;

    private const ushort Ipv4 = 0x0800, Arp = 0x0806, Ipv6 = 0x86DD, Vlan = 0x8100, ProviderVlan = 0x88A8;
    private const int TypeAt = 12, BodyAt = 14, SourceMacAt = 6;

    /// <summary>The program.</summary>
    /// <param name="mac">The guest's MAC address, 6 bytes.</param>
    /// <param name="addresses">Addresses that it may use; none: any.</param>
    internal static byte[] Build(ReadOnlySpan<byte> mac, IReadOnlyList<IPAddress> addresses)
    {
        BpfProgram program = new();
        byte[] own = mac.ToArray();
        program.LoadVlanPresent();
        program.DropUnlessEqual(0);
        CheckMac(program, SourceMacAt, own);
        program.LoadHalf(TypeAt);
        program.OnEqual(Arp, () => CheckArp(program, own, Of(addresses, AddressFamily.InterNetwork), addresses.Count == 0));
        if (addresses.Count > 0)
        {
            program.OnEqual(Ipv4, () => CheckIpv4(program, Of(addresses, AddressFamily.InterNetwork)));
            program.OnEqual(Ipv6, () => CheckIpv6(program, [LinkLocal(own), .. Of(addresses, AddressFamily.InterNetworkV6)]));
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

    private static void CheckIpv4(BpfProgram program, byte[][] addresses)
    {
        AcceptIfAny(program, BodyAt + 12, addresses);
        program.LoadWord(BodyAt + 12);
        program.DropUnlessEqual(0); // a client of DHCP that has none yet: RFC 2131 section 4.1
        program.LoadWord(BodyAt + 16);
        program.DropUnlessEqual(uint.MaxValue);
        program.LoadByte(BodyAt + 9);
        program.DropUnlessEqual(17);
        program.LoadHalf(BodyAt + 6);
        program.DropUnlessNone(0x1fff); // the first fragment
        program.LoadHeaderLength(BodyAt);
        program.LoadHalfBehindHeader(BodyAt + 2);
        program.DropUnlessEqual(67);
        program.Accept();
    }

    private static void CheckIpv6(BpfProgram program, byte[][] addresses)
    {
        const int source = BodyAt + 8, next = BodyAt + 6, payload = BodyAt + 40;
        BpfLabel known = new();
        program.GoIfAny(source, [new byte[16], .. addresses], known);
        program.Drop();
        program.Mark(known);
        program.LoadByte(next);
        program.OnEqual(58, () => // ICMPv6
        {
            program.LoadByte(payload);
            program.DropIfEqual(134); // router advertisement
            program.DropIfEqual(137); // redirect
            program.OnEqual(136, () => // neighbour advertisement: whose address it tells
            {
                AcceptIfAny(program, payload + 8, addresses);
                program.Drop();
            });
            program.Accept();
        });
        program.OnEqual(0, () => // options for every hop: reports of group membership only, nothing that hides the above
        {
            program.LoadHalf(payload);
            program.DropUnlessEqual(58 << 8); // ICMPv6 behind 8 bytes
            program.LoadByte(payload + 8);
            program.OnEqual(131, program.Accept);
            program.OnEqual(132, program.Accept);
            program.OnEqual(143, program.Accept);
            program.Drop();
        });
        program.DropIfEqual(43); // routing
        program.DropIfEqual(60); // destination options
        program.DropIfEqual(135); // mobility
        program.Accept();
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

    /// <summary>fe80::/64 with the modified EUI-64 of the MAC address: RFC 4291, appendix A.</summary>
    private static byte[] LinkLocal(byte[] mac) =>
        [0xFE, 0x80, 0, 0, 0, 0, 0, 0, (byte)(mac[0] ^ 2), mac[1], mac[2], 0xFF, 0xFE, mac[3], mac[4], mac[5]];
}
