using System.Net;
using Vmm.Interop;

namespace Vmm.HostNet;

/// <summary>The bridge of a private network. Its alias says whose it is: one of another name or alias is never touched.</summary>
public static class PrivateBridge
{
    private const ushort NewLink = 16, DelLink = 17;
    private const ushort Address = 1, Name = 3, Master = 10, LinkInfo = 18, NetNsPid = 19, Alias = 20, AfSpec = 26, Kind = 1, Data = 2;
    private const byte FamilyIpv6 = 10;
    private const uint Up = 1;
    private const string Interfaces = "/sys/class/net";

    /// <summary>A bridge of this number is not there.</summary>
    public static bool IsFree(int number) =>
        !Directory.Exists(Path.Combine(Interfaces, FormattableString.Invariant($"{PrivateNetwork.BridgePrefix}{number}")));

    /// <summary>The bridge is there and is the network's.</summary>
    /// <exception cref="HostNetException">One of its name is somebody else's.</exception>
    public static bool IsThere(PrivateNetwork network)
    {
        using RouteSocket route = new();
        return Find(route, network) is not null;
    }

    /// <summary>Makes the bridge when it is not there, and gives it its address and its ports when it has lost them.</summary>
    /// <returns>It was not there.</returns>
    /// <exception cref="HostNetException">One of its name is somebody else's, or the kernel refused.</exception>
    public static bool Ensure(PrivateNetwork network)
    {
        using RouteSocket route = new();
        bool missing = Find(route, network) is null;
        if (missing)
        {
            // An address of its own: otherwise it would be that of its ports, and change as they come and go.
            Do(route, network, RouteMessage.Link(NewLink, 0, create: true).Add(Name, network.Bridge).Add(Address, network.BridgeMac)
                .Add(LinkInfo, m => m.Add(Kind, "bridge")), "make the bridge");
        }

        InterfaceFacts bridge = route.Find(network.Bridge)
            ?? throw new HostNetException($"network {network.Name}: the bridge {network.Bridge} is gone again");
        Do(route, network, RouteMessage.Link(NewLink, bridge.Index).Add(Alias, network.Alias), "name the bridge");
        NoOwnIpv6(route, bridge.Index);
        Do(route, network, RouteMessage.NewAddress(bridge.Index, network.Gateway.GetAddressBytes(), network.Subnet.Prefix),
            $"give the bridge its address {network.Gateway}");
        Do(route, network, RouteMessage.Link(NewLink, bridge.Index, flags: Up), "switch the bridge on");
        EnsureIpv6(route, network, bridge.Index);
        foreach (string tap in Taps(network))
        {
            Attach(route, network, bridge.Index, tap);
        }

        return missing;
    }

    /// <summary>
    /// Makes a pair of interfaces: one is a port of the bridge, the other, <c>lan0</c>, is in the namespace of a process.
    /// </summary>
    /// <exception cref="HostNetException">The kernel refused.</exception>
    internal static void AddServicePort(PrivateNetwork network, int process)
    {
        using RouteSocket route = new();
        RemoveServicePort(route, network);
        Do(route, network, RouteMessage.Link(NewLink, 0, create: true).Add(Name, network.ServicePort).Add(LinkInfo, m => m
            .Add(Kind, "veth")
            .Add(Data, d => d.AddPeer(1 /* VETH_INFO_PEER */, p => p
                .Add(Name, "lan0").Add(Address, network.ServerMac).Add(NetNsPid, (uint)process)))),
            "make the interface of dnsmasq (module veth)");
        InterfaceFacts port = route.Find(network.ServicePort)
            ?? throw new HostNetException($"network {network.Name}: the interface {network.ServicePort} is gone again");
        Do(route, network, RouteMessage.Link(NewLink, port.Index).Add(Alias, network.Alias), "name the interface of dnsmasq");
        NoOwnIpv6(route, port.Index);
        AttachServicePort(network);
    }

    /// <summary>Puts dnsmasq's interface into the bridge, when it is not there.</summary>
    /// <exception cref="HostNetException">There is no such interface, or the kernel refused.</exception>
    internal static void AttachServicePort(PrivateNetwork network)
    {
        using RouteSocket route = new();
        InterfaceFacts bridge = Find(route, network) ?? throw new HostNetException($"network {network.Name}: its bridge is gone");
        Attach(route, network, bridge.Index, network.ServicePort);
    }

    /// <summary>Takes the addresses of IPv6 from the bridge: the network is to have others, or none.</summary>
    /// <exception cref="HostNetException">The kernel refused.</exception>
    public static void RemoveIpv6(PrivateNetwork network)
    {
        using RouteSocket route = new();
        if (Find(route, network) is { } bridge)
        {
            foreach (IPAddress address in HostIpv6.Of(network.Bridge).Intersect(Ipv6Addresses(network)))
            {
                Do(route, network, RouteMessage.RemoveAddress(bridge.Index, address.GetAddressBytes(), Ipv6Prefix.Length),
                    $"take the address {address} from the bridge");
            }
        }
    }

    /// <summary>Removes the bridge, and what vmmd made beside it; nothing when it is not there or somebody else's.</summary>
    /// <exception cref="HostNetException">The kernel refused.</exception>
    public static void Remove(PrivateNetwork network)
    {
        using RouteSocket route = new();
        RemoveServicePort(route, network);
        if (route.Find(network.Bridge) is { } bridge && IsOwn(network, bridge))
        {
            Do(route, network, RouteMessage.Link(DelLink, bridge.Index), "remove the bridge");
        }
    }

    /// <summary>The bridge has the addresses of IPv6 that it is to have; it needs none when the network has none.</summary>
    public static bool HasIpv6(PrivateNetwork network) =>
        Ipv6Addresses(network) is [] || !Ipv6Addresses(network).Except(HostIpv6.Of(network.Bridge)).Any();

    // A router on this link, and no host: it takes no advertisements of others. Nobody else has its addresses, so none is asked about.
    private static void EnsureIpv6(RouteSocket route, PrivateNetwork network, int bridge)
    {
        if (network.Ipv6 is null)
        {
            return;
        }

        try
        {
            HostIpv6.Write(network.Bridge, "disable_ipv6", "0");
            HostIpv6.Write(network.Bridge, "accept_ra", "0");
            HostIpv6.SetForwarding(network.Bridge, network.Isolated ? "0" : "1");
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            throw new HostNetException($"network {network.Name}: set up IPv6 of {network.Bridge}: {cause.Message}; --ipv6 none makes a "
                + "network without", cause);
        }

        foreach (IPAddress address in Ipv6Addresses(network))
        {
            Do(route, network, RouteMessage.NewAddress(bridge, address.GetAddressBytes(), Ipv6Prefix.Length),
                $"give the bridge its address {address}");
        }
    }

    private static IPAddress[] Ipv6Addresses(PrivateNetwork network) =>
        network.Gateway6 is { } gateway ? [Ipv6Prefix.LinkLocal(network.BridgeMac), gateway] : [];

    // None that the kernel makes by itself, as it does for each interface. A kernel without IPv6 has none.
    private static void NoOwnIpv6(RouteSocket route, int link) =>
        _ = route.Do(RouteMessage.Link(NewLink, link).Add(AfSpec, m => m.Add(FamilyIpv6, v6 => v6.Add(8, (ReadOnlySpan<byte>)[1]))));

    private static void RemoveServicePort(RouteSocket route, PrivateNetwork network)
    {
        if (route.Find(network.ServicePort) is { Kind: "veth" } port && string.Equals(port.Alias, network.Alias, StringComparison.Ordinal))
        {
            _ = route.Do(RouteMessage.Link(DelLink, port.Index)); // it may go by itself at this moment, with its other end
        }
    }

    private static void Attach(RouteSocket route, PrivateNetwork network, int bridge, string port)
    {
        if (route.Find(port) is { } found && found.Master != bridge)
        {
            Do(route, network, RouteMessage.Link(NewLink, found.Index).Add(Master, (uint)bridge), $"attach {port}");
        }

        if (route.Find(port) is { } now)
        {
            Do(route, network, RouteMessage.Link(NewLink, now.Index, flags: Up), $"switch {port} on");
        }
    }

    // The taps of VMs that belong to it, wherever they are attached.
    private static List<string> Taps(PrivateNetwork network)
    {
        List<string> taps = [];
        foreach (string path in Directory.EnumerateFileSystemEntries(Interfaces))
        {
            string name = Path.GetFileName(path);
            try
            {
                if (name.StartsWith("vmm", StringComparison.Ordinal) && File.ReadAllText(Path.Combine(path, "ifalias")).Trim()
                    .EndsWith(network.TapAlias(""), StringComparison.Ordinal) && File.Exists(Path.Combine(path, "tun_flags")))
                {
                    taps.Add(name);
                }
            }
            catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
            {
                // Gone meanwhile.
            }
        }

        return taps;
    }

    private static InterfaceFacts? Find(RouteSocket route, PrivateNetwork network)
    {
        InterfaceFacts? found = route.Find(network.Bridge);
        return found is null || IsOwn(network, found) ? found : throw new HostNetException(
            $"network {network.Name}: {network.Bridge} is somebody else's: remove it with 'ip link del {network.Bridge}', or delete the "
                + "network and create it again");
    }

    private static bool IsOwn(PrivateNetwork network, InterfaceFacts found) =>
        found.Kind is "bridge" && string.Equals(found.Alias, network.Alias, StringComparison.Ordinal);

    private static void Do(RouteSocket route, PrivateNetwork network, RouteMessage message, string what)
    {
        int errno = route.Do(message);
        if (errno != 0)
        {
            throw new HostNetException(errno is Errno.EPERM or Errno.EACCES
                ? $"network {network.Name}: {what}: not permitted: vmmd needs CAP_NET_ADMIN; without it VMs have 'user' networks"
                : $"network {network.Name}: {new KernelException(what, errno).Message}");
        }
    }
}
