using System.Net;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.HostNet;

/// <summary>
/// Makes taps that are ports of a bridge of the host. Such a tap is there as long as a queue of it is open: the kernel takes it away, with
/// its filter and its place in the bridge, when the last process that has one closes it or dies. Nothing else of the host is changed.
/// </summary>
public static class BridgeTap
{
    private const string Pattern = "vmm%d";
    private const ushort SetLink = 19, NewLink = 16, DelLink = 17, NewQdisc = 36, NewFilter = 44;
    private const ushort Address = 1, Mtu = 4, Master = 10, Alias = 20, AfSpec = 26;
    private const byte FamilyBridge = 7, FamilyIpv6 = 10;

    /// <summary>Makes a tap, and opens its queues.</summary>
    /// <param name="net">The network device, which has a bridge.</param>
    /// <param name="owner">Who it belongs to: the text that becomes the interface's alias.</param>
    /// <param name="unfiltered">
    /// Hears why the guest is not held to its address, when the kernel cannot do that; null: then there is no tap.
    /// </param>
    /// <param name="served">The bridge is one with a router and a DHCP server of vmmd's own: <see cref="SpoofFilter.Build"/>.</param>
    /// <returns>Its queues; the caller owns them.</returns>
    /// <exception cref="HostNetException">The bridge is not there or not as the device wants it, or the kernel refused.</exception>
    public static IReadOnlyList<TapQueue> Open(NetSpec net, string owner, Action<string>? unfiltered = null, bool served = false)
    {
        List<TapQueue> queues = [];
        try
        {
            using RouteSocket route = new();
            InterfaceFacts bridge = Require(route, net);
            bool many = net.Queues > 1;
            queues.Add(TapQueue.Make(Pattern, many));
            while (queues.Count < net.Queues)
            {
                queues.Add(TapQueue.Open(queues[0].Name, many));
            }

            Connect(route, net, bridge, queues[0].Name, owner, unfiltered, served);
            return queues;
        }
        catch (Exception cause)
        {
            queues.ForEach(queue => queue.Dispose());
            throw cause is TapException or KernelException ? new HostNetException($"bridge {net.Bridge}: {cause.Message}", cause) : cause;
        }
    }

    /// <summary>The MTU of a bridge in bytes; 0 when there is none of this name.</summary>
    public static int MtuOf(string bridge) => TapQueue.MtuOf(bridge);

    private static InterfaceFacts Require(RouteSocket route, NetSpec net)
    {
        InterfaceFacts bridge = route.Find(net.Bridge!) ?? throw new HostNetException(
            $"bridge {net.Bridge} does not exist: create it with 'ip link add {net.Bridge} type bridge'");
        return bridge.Kind is not "bridge" ? throw new HostNetException($"{net.Bridge} is no bridge")
            : net.Mtu > bridge.Mtu ? throw new HostNetException(
                $"bridge {net.Bridge} has an MTU of {bridge.Mtu}, which is less than the {net.Mtu} of the device")
            : net.Vlan is not null && !bridge.SeparatesVlans ? throw new HostNetException(
                $"bridge {net.Bridge} does not separate VLANs: 'ip link set {net.Bridge} type bridge vlan_filtering 1' makes it do so")
            : bridge;
    }

    // The filter first, and up last: no frame goes by it.
    private static void Connect(
        RouteSocket route, NetSpec net, InterfaceFacts bridge, string name, string owner, Action<string>? unfiltered, bool served)
    {
        int tap = (route.Find(name) ?? throw new HostNetException($"bridge {net.Bridge}: the new tap {name} is gone again")).Index;
        if (net.AntiSpoof == true)
        {
            try
            {
                Filter(route, net, tap, served);
            }
            catch (HostNetException cause) when (unfiltered is not null)
            {
                unfiltered(cause.Message);
            }
        }

        // A bridge may take the lowest address of its ports for its own: this is never that. RFC 7042 section 2.1: locally administered.
        Span<byte> address = stackalloc byte[6];
        HostRandom.Fill(address);
        address[0] = 0xFE;
        RouteMessage link = RouteMessage.Link(NewLink, tap).Add(Address, address).Add(Alias, owner);
        link.Add(Mtu, (uint)bridge.Mtu); // lower, and the bridge would lower its own
        Do(route, net, link, "set up the tap");
        // No address of the host's own on it; a kernel without IPv6 has none.
        _ = route.Do(RouteMessage.Link(NewLink, tap).Add(AfSpec, m => m.Add(FamilyIpv6, v6 => v6.Add(8, (ReadOnlySpan<byte>)[1]))));
        Do(route, net, RouteMessage.Link(NewLink, tap).Add(Master, (uint)bridge.Index), "attach the tap");
        if (net.Vlan is { } vlan)
        {
            PutIntoVlan(route, net, tap, vlan);
        }

        Do(route, net, RouteMessage.Link(NewLink, tap, flags: 1 /* IFF_UP */), "switch the tap on");
    }

    // Untagged both ways, and in no other VLAN.
    private static void PutIntoVlan(RouteSocket route, NetSpec net, int tap, int vlan)
    {
        _ = route.Do(Vlan(DelLink, tap, 1, 0)); // the bridge's default, which it may not have
        Do(route, net, Vlan(SetLink, tap, vlan, 2 | 4 /* BRIDGE_VLAN_INFO_PVID, UNTAGGED */), $"put the tap into VLAN {vlan}");
    }

    private static RouteMessage Vlan(ushort type, int tap, int vlan, int flags) =>
        RouteMessage.Link(type, tap, FamilyBridge).Add(AfSpec, m => m.Add(2, (ReadOnlySpan<byte>)
            [(byte)flags, 0, (byte)vlan, (byte)(vlan >> 8)])); // IFLA_BRIDGE_VLAN_INFO

    // A program that tc runs on what comes out of the guest, before the bridge sees it.
    private static void Filter(RouteSocket route, NetSpec net, int tap, bool served)
    {
        byte[] mac = new byte[6];
        if (!MacAddress.TryParse(net.Mac ?? "", mac))
        {
            throw new HostNetException($"bridge {net.Bridge}: antiSpoof needs the device's mac");
        }

        byte[] program = SpoofFilter.Build(mac, [.. (net.Addresses ?? []).Select(IPAddress.Parse)], served);
        const uint qdisc = 0xFFFF_0000, clsact = 0xFFFF_FFF1, ingress = 0xFFFF_FFF2, everyFrame = (1 << 16) | 0x0300; // ETH_P_ALL
        Do(route, net, RouteMessage.Traffic(NewQdisc, tap, qdisc, clsact).Add(1, "clsact"), "filter the tap (module sch_ingress)");
        Do(route, net, RouteMessage.Traffic(NewFilter, tap, 0, ingress, everyFrame).Add(1, "bpf").Add(2, m =>
        {
            int count = program.Length / SpoofFilter.InstructionLength;
            m.Add(4, (ReadOnlySpan<byte>)[(byte)count, (byte)(count >> 8)]).Add(5, program).Add(8, 1u); // OPS_LEN, OPS, FLAGS: ACT_DIRECT
        }), "filter the tap (module cls_bpf)");
    }

    private static void Do(RouteSocket route, NetSpec net, RouteMessage message, string what)
    {
        int errno = route.Do(message);
        if (errno != 0)
        {
            throw new HostNetException($"bridge {net.Bridge}: {new KernelException(what, errno).Message}");
        }
    }
}
