using System.Text;

namespace Vmm.HostNet;

/// <summary>
/// The rules of a private network, in a table of nftables of its own: nothing of the host's other rules changes, and what those drop stays
/// dropped.
/// </summary>
/// <param name="folder">Where the text of the rules is written, and what vmmd changed of the host.</param>
public sealed class NetworkRules(string folder)
{
    private readonly HostForwarding _ipv4 = new(ipv6: false, folder), _ipv6 = new(ipv6: true, folder);
    private readonly NftTables _tables = new(folder);

    /// <summary>Writes the rules of a network anew, in one step.</summary>
    /// <exception cref="HostNetException">nft is not installed, or refused.</exception>
    public void Apply(PrivateNetwork network) => _tables.Load($"network {network.Name}", network.Table, Chains(network));

    /// <summary>Whether the rules of a network are there.</summary>
    /// <exception cref="HostNetException">nft is not installed.</exception>
    public static bool AreThere(PrivateNetwork network) => NftTables.IsThere(network.Table);

    /// <summary>Removes the rules of a network.</summary>
    /// <exception cref="HostNetException">nft is not installed, or refused.</exception>
    public static void Remove(PrivateNetwork network) => NftTables.Remove($"network {network.Name}", network.Table);

    /// <summary>Lets the host forward the packets of a network that leads out.</summary>
    /// <returns>Settings of the host that were switched on now.</returns>
    /// <exception cref="HostNetException">One cannot be.</exception>
    public IReadOnlyList<string> BeginForwarding(PrivateNetwork network) => network.Isolated ? []
        : [.. new[] { _ipv4, _ipv6 }.Where(f => (f == _ipv4 || network.Ipv6 is not null) && f.Begin()).Select(f => f.Setting)];

    /// <summary>No network leads anywhere any more: what was switched on by vmmd is switched off.</summary>
    /// <param name="ipv6">By IPv6; else by IPv4.</param>
    /// <returns>The setting; null: vmmd had not switched it on.</returns>
    /// <exception cref="HostNetException">nft refused.</exception>
    public string? EndForwarding(bool ipv6)
    {
        HostForwarding forwarding = ipv6 ? _ipv6 : _ipv4;
        return forwarding.End() ? forwarding.Setting : null;
    }

    /// <summary>The host forwards what a network needs forwarded.</summary>
    public bool Forwards(PrivateNetwork network) => network.Isolated || (_ipv4.IsOn && (network.Ipv6 is null || _ipv6.IsOn));

    /// <summary>The rules as nft reads them.</summary>
    internal static string Text(PrivateNetwork network) => NftTables.Text(network.Table, Chains(network));

    private static string Chains(PrivateNetwork network)
    {
        StringBuilder text = new();
        string bridge = network.Bridge;
        Chain(text, "input", "filter hook input priority filter",
        [
            $"iifname != \"{bridge}\" accept", "ct state established,related accept",
            $"ip saddr {network.Subnet} ip daddr {network.Gateway} icmp type echo-request accept",
            .. network.Ipv6 is { } at ? (string[])
            [
                "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept", // without them nobody finds anybody: RFC 4861
                $"ip6 saddr {at} ip6 daddr {at.Address(PrivateNetwork.GatewayNumber)} icmpv6 type echo-request accept",
            ] : [],
            "drop",
        ]);
        Chain(text, "forward", "filter hook forward priority filter",
        [
            $"iifname \"{bridge}\" oifname \"{bridge}\" accept",
            $"iifname \"{bridge}\" {(network.Isolated ? "drop" : $"ip saddr != {network.Subnet} drop")}",
            $"iifname \"{bridge}\" {(network.Ipv6 is { } from ? $"ip6 saddr != {from} drop" : "meta nfproto != ipv4 drop")}",
            $"oifname \"{bridge}\" ct state established,related accept", $"oifname \"{bridge}\" drop",
        ]);
        if (!network.Isolated)
        {
            Chain(text, "nat", "nat hook postrouting priority srcnat",
            [
                $"ip saddr {network.Subnet} oifname != \"{bridge}\" masquerade",
                .. network.Ipv6 is { } own ? (string[])[$"ip6 saddr {own} oifname != \"{bridge}\" masquerade"] : [],
            ]);
        }

        if (network is { Isolated: false, Ipv6: not null })
        {
            // What goes to the router in dnsmasq's namespace comes back from there to be forwarded. With br_netfilter it is seen both
            // times: tracked at the first, it would be a connection already whose addresses stay as they are.
            Chain(text, "untracked", "filter hook prerouting priority raw",
                [$"iifname \"{bridge}\" meta nfproto ipv6 ether daddr {PrivateNetwork.Text(network.ServerMac)} notrack"]);
        }

        return text.ToString();
    }

    private static void Chain(StringBuilder text, string name, string type, string[] rules)
    {
        text.Append("    chain ").Append(name).Append(" {\n        type ").Append(type).Append("; policy accept;\n        ");
        text.AppendJoin("\n        ", rules).Append("\n    }\n");
    }
}
