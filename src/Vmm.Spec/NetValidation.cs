using System.Net;
using System.Net.Sockets;

namespace Vmm.Spec;

/// <summary>The rules of network devices and of rate limits.</summary>
internal static class NetValidation
{
    internal static void CheckNets(VmSpec spec, SpecComplaints check)
    {
        for (int i = 0; i < spec.Nets.Count; i++)
        {
            CheckNet(spec, i, check);
        }
    }

    internal static void CheckLimits(LimitsSpec limits, string path, SpecComplaints check)
    {
        check.Require(
            limits.Bandwidth is not null || limits.Operations is not null, path, "limits nothing: give bandwidth, operations or both");
        check.Require(limits.Bandwidth is not { } bandwidth || bandwidth.Bytes is >= 1024 and <= LimitsSpec.MostBytes, path + ".bandwidth",
            $"{limits.Bandwidth?.ToString() ?? ""}, expected 1KiB to 1048576TiB a second");
        check.Require(limits.Burst is not { } burst || burst.Bytes is >= 1024 and <= LimitsSpec.MostBytes, path + ".burst",
            $"{limits.Burst?.ToString() ?? ""}, expected 1KiB to 1048576TiB");
        check.Require(limits.Burst is null || limits.Bandwidth is not null, path + ".burst", "belongs to a bandwidth, and there is none");
        check.Require(limits.OperationsBurst is null || limits.Operations is not null, path + ".operationsBurst",
            "belongs to operations, and there are none");
    }

    private static void CheckNet(VmSpec spec, int index, SpecComplaints check)
    {
        NetSpec net = spec.Nets[index];
        string path = $"nets[{index}]";
        if (net.Network is { } network)
        {
            CheckNetwork(net, network, path, check);
        }
        else
        {
            CheckBridge(net, path, check);
        }

        if (net.Macvtap is { } card)
        {
            check.Require(IsInterface(card), path + ".macvtap",
                $"\"{card}\", expected the name of a network interface: 1 to 15 characters without '/', ':' and spaces");
            string? other = net.Tap.Length > 0 ? "tap" : net.Bridge is not null ? "bridge" : net.Network is not null ? "network" : null;
            check.Require(other is null, path + ".macvtap", $"stands beside {other ?? ""}: give one of the two");
        }

        check.Require(net.Macvtap is not null || net.Mode is null, path + ".mode", "belongs to a macvtap, and there is none");
        CheckSource(net, path, check);
        Span<byte> mac = stackalloc byte[6];
        bool isMac = net.Mac is null || MacAddress.TryParse(net.Mac, mac);
        check.Require(isMac, path + ".mac", $"\"{net.Mac ?? ""}\", expected six pairs of hexadecimal digits such as 52:54:00:12:34:56");
        check.Require(!isMac || net.Mac is null || ((mac[0] & 1) == 0 && mac.IndexOfAnyExcept((byte)0) >= 0), path + ".mac",
            $"{net.Mac ?? ""} is not the address of one device: the first byte must be even, and not all may be zero");
        NumaValidation.CheckNearness(spec, net.Vnode, path, check);
        if (net.Limits is { } limits)
        {
            CheckLimits(limits, path + ".limits", check);
        }

        check.Require(net.Limits is null || net.Vhost != VhostUse.On, path + ".vhost",
            "on, but the kernel's path knows no limits: leave one of the two out");
        for (int i = 0; i < index; i++)
        {
            NetSpec other = spec.Nets[i];
            check.Require(net.Tap.Length == 0 || !string.Equals(net.Tap, other.Tap, StringComparison.Ordinal), path + ".tap",
                $"{net.Tap} is nets[{i}] too: a tap belongs to one device");
            check.Require(net.User is null || other.User is null, path + ".user",
                $"nets[{i}] is user-mode too: a VM has one such network, which publishes all its ports");
            check.Require(net.Bridge is null || !string.Equals(net.Source, other.Source, StringComparison.Ordinal), path + ".bridge",
                $"nets[{i}] is on {net.Bridge ?? ""} too: give both a mac, which tells them apart");
            check.Require(net.Macvtap is null || !string.Equals(net.Source, other.Source, StringComparison.Ordinal), path + ".macvtap",
                $"nets[{i}] is on {net.Macvtap ?? ""} too: give both a mac, which tells them apart");
            check.Require(net.Network is null || !string.Equals(net.Source, other.Source, StringComparison.Ordinal), path + ".network",
                $"nets[{i}] is in {net.Network ?? ""} too: give both a mac, which tells them apart");
            check.Require(net.Mac is null || !string.Equals(net.Mac, other.Mac, StringComparison.OrdinalIgnoreCase), path + ".mac",
                $"{net.Mac ?? ""} is the address of nets[{i}] too");
        }
    }

    private static void CheckSource(NetSpec net, string path, SpecComplaints check)
    {
        if (net.User is not { } user)
        {
            if ((net.Bridge ?? net.Network ?? net.Macvtap) is not null)
            {
                return;
            }

            check.Require(IsInterface(net.Tap), path + ".tap",
                $"\"{net.Tap}\", expected the name of a network interface: 1 to 15 characters without '/', ':' and spaces");
            return;
        }

        path += ".user";
        check.Require(net.Bridge is null, path, $"stands beside bridge: {net.Bridge ?? ""}: give one of the two");
        check.Require(net.Macvtap is null, path, $"stands beside macvtap: {net.Macvtap ?? ""}: give one of the two");
        check.Require(net.Network is null, path, $"stands beside network: {net.Network ?? ""}: give one of the two");
        check.Require(net.Tap.Length == 0, path, $"stands beside tap: {net.Tap}: give one of the two");
        check.Require(net.Queues == 1, path, $"user-mode networking has one queue pair, not {net.Queues}");
        check.Require(net.Vhost != VhostUse.On, path, "the kernel's path (vhost: on) is for taps only");
        check.Require(net.Mtu is null or <= UserNetSpec.MostMtu, path, $"an MTU of at most {UserNetSpec.MostMtu}, not {net.Mtu ?? 0}");
        check.Require(user.Publish.Count <= UserNetSpec.MostPublished, path + ".publish",
            $"{user.Publish.Count} entries, expected at most {UserNetSpec.MostPublished}");
        CheckPublished(user, path + ".publish", check);
    }

    private static void CheckNetwork(NetSpec net, string network, string path, SpecComplaints check)
    {
        check.Require(SpecValidation.IsName(network), path + ".network",
            $"\"{network}\" is not a name: 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first");
        check.Require(net.Tap.Length == 0, path + ".network", $"stands beside tap: {net.Tap}: give one of the two");
        check.Require(net.Bridge is null, path + ".network", $"stands beside bridge: {net.Bridge ?? ""}: give one of the two");
        check.Require(net.Vlan is null, path + ".vlan", "belongs to a bridge, and there is none");
        check.Require(net.Mtu is null or <= NetSpec.NetworkMtu, path + ".mtu",
            $"a network has an MTU of {NetSpec.NetworkMtu}, which is less than {net.Mtu ?? 0}");
        IReadOnlyList<string> addresses = net.Addresses ?? [];
        check.Require(net.Addresses is null || (addresses.Count == 1 && IsAddress(addresses[0]) && IPAddress.Parse(addresses[0])
            .AddressFamily == AddressFamily.InterNetwork), path + ".addresses", "of a network: one IPv4 address, which is reserved");
    }

    private static void CheckBridge(NetSpec net, string path, SpecComplaints check)
    {
        if (net.Bridge is not { } bridge)
        {
            check.Require(net.Vlan is null, path + ".vlan", "belongs to a bridge, and there is none");
            check.Require(net.AntiSpoof != true, path + ".antiSpoof", "belongs to a bridge, and there is none");
            check.Require(net.Addresses is null, path + ".addresses", "belong to a bridge with antiSpoof, and there is none");
            return;
        }

        check.Require(IsInterface(bridge), path + ".bridge",
            $"\"{bridge}\", expected the name of a bridge: 1 to 15 characters without '/', ':' and spaces");
        check.Require(net.Tap.Length == 0, path + ".bridge", $"stands beside tap: {net.Tap}: give one of the two");
        check.Require(net.Mac is not null || net.AntiSpoof != true, path + ".antiSpoof",
            "needs a mac: the one that the guest is held to");
        IReadOnlyList<string> addresses = net.Addresses ?? [];
        check.Require(net.AntiSpoof == true || net.Addresses is null, path + ".addresses", "belong to antiSpoof: true");
        check.Require(net.Addresses is null || addresses.Count is > 0 and <= NetSpec.MostAddresses, path + ".addresses",
            $"{addresses.Count} entries, expected 1 to {NetSpec.MostAddresses}");
        for (int i = 0; i < Math.Min(addresses.Count, NetSpec.MostAddresses); i++)
        {
            string text = addresses[i];
            check.Require(IsAddress(text), $"{path}.addresses[{i}]",
                $"\"{text[..Math.Min(text.Length, PublishedPort.MostText)]}\", expected an IPv4 or IPv6 address of one device");
        }
    }

    // As the kernel would write it, so that no form of it is read in two ways.
    private static bool IsAddress(string text) => IPAddress.TryParse(text, out IPAddress? address)
        && (address.AddressFamily == AddressFamily.InterNetworkV6
            ? !text.Contains('%', StringComparison.Ordinal) && !address.IsIPv6Multicast && !address.Equals(IPAddress.IPv6Any)
            : string.Equals(address.ToString(), text, StringComparison.Ordinal) && address.GetAddressBytes()[0] is > 0 and < 224);

    private static void CheckPublished(UserNetSpec user, string path, SpecComplaints check)
    {
        HashSet<(string, int, bool)> seen = [];
        for (int i = 0; i < Math.Min(user.Publish.Count, UserNetSpec.MostPublished); i++)
        {
            string text = user.Publish[i];
            bool read = PublishedPort.TryParse(text, out PublishedPort port, out string problem);
            check.Require(read, $"{path}[{i}]", $"\"{text[..Math.Min(text.Length, PublishedPort.MostText)]}\": {problem}");
            check.Require(!read || seen.Add((port.Address, port.HostPort, port.IsUdp)), $"{path}[{i}]",
                $"{text}: an entry before it has that port of the host");
        }
    }

    private static bool IsInterface(string name)
    {
        // The kernel's rule, dev_valid_name(); names here are ASCII, so that characters are bytes.
        if (name.Length is < 1 or > 15 || name is "." or "..")
        {
            return false;
        }

        foreach (char c in name)
        {
            if (c is <= ' ' or > '~' or '/' or ':')
            {
                return false;
            }
        }

        return true;
    }
}
