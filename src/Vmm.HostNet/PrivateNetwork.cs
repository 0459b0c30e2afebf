using System.Globalization;
using System.Net;
using System.Security.Cryptography;
using System.Text;

namespace Vmm.HostNet;

/// <summary>An address that is reserved on a private network.</summary>
/// <param name="Name">Name by which it is found; null: none.</param>
/// <param name="Mac">MAC address of the device that gets it.</param>
/// <param name="Address">The IPv4 address.</param>
/// <param name="Ipv6">The IPv6 address; null: the network has none.</param>
public sealed record ReservedAddress(string? Name, string Mac, IPAddress Address, IPAddress? Ipv6 = null);

/// <summary>A private network: what is made of it on the host has names that come from here.</summary>
/// <param name="Name">Its name, for people.</param>
/// <param name="Id">Tells its objects from those of others: it is in the alias of its bridge.</param>
/// <param name="Number">Number of its bridge, which no other network of this host has.</param>
/// <param name="Subnet">Its addresses, /16 to /29.</param>
/// <param name="Isolated">It leads nowhere.</param>
/// <param name="Ipv6">Its IPv6 addresses; null: it has none.</param>
public sealed record PrivateNetwork(string Name, string Id, int Number, Ipv4Subnet Subnet, bool Isolated, Ipv6Prefix? Ipv6 = null)
{
    /// <summary>What names of bridges begin with.</summary>
    public const string BridgePrefix = "vmmbr";

    /// <summary>The domain of the names of VMs; ICANN keeps <c>internal</c> for such.</summary>
    public const string Domain = "vmm.internal";

    /// <summary>The first of its addresses that a VM can have.</summary>
    public const uint FirstGuest = 3;

    /// <summary>Which of its addresses are the host's and that of DHCP and DNS.</summary>
    internal const uint GatewayNumber = 1, ServerNumber = 2;

    /// <summary>Its bridge.</summary>
    public string Bridge => FormattableString.Invariant($"{BridgePrefix}{Number}");

    /// <summary>The port of its bridge behind which dnsmasq is.</summary>
    internal string ServicePort => FormattableString.Invariant($"vmmdns{Number}");

    /// <summary>Its table of nftables.</summary>
    internal string Table => "vmm_" + Bridge;

    /// <summary>Alias of its bridge.</summary>
    internal string Alias => $"vmm network {Id}";

    /// <summary>The host's address on it, which is its gateway.</summary>
    public IPAddress Gateway => Subnet.Address(GatewayNumber);

    /// <summary>Where dnsmasq answers.</summary>
    public IPAddress Server => Subnet.Address(ServerNumber);

    /// <summary>The host's IPv6 address on it.</summary>
    public IPAddress? Gateway6 => Ipv6?.Address(GatewayNumber);

    /// <summary>Where dnsmasq answers by IPv6.</summary>
    public IPAddress? Server6 => Ipv6?.Address(ServerNumber);

    /// <summary>MAC address of its bridge: the same whenever it is made again, guests remember it.</summary>
    internal byte[] BridgeMac => Mac("bridge");

    /// <summary>MAC address of dnsmasq.</summary>
    internal byte[] ServerMac => Mac("server");

    /// <summary>The IPv6 address of a device: that in its range which its IPv4 address is in the other.</summary>
    /// <param name="address">The IPv4 address.</param>
    public IPAddress? Ipv6Of(IPAddress address) => Ipv6?.Address(Ipv4Subnet.Number(address) - Subnet.First);

    /// <summary>A MAC address as people and nft write it.</summary>
    internal static string Text(byte[] mac) => string.Join(':', mac.Select(b => b.ToString("x2", CultureInfo.InvariantCulture)));

    /// <summary>Alias of a tap of it.</summary>
    /// <param name="owner">Alias of taps of the VM.</param>
    public string TapAlias(string owner) => $"{owner} {Id}";

    /// <summary>
    /// The name of a VM as a name of a host: lower case, and a hyphen for what such a name has not (RFC 1123 section 2.1). Null: nothing is
    /// left.
    /// </summary>
    public static string? HostName(string vm)
    {
        StringBuilder name = new();
        foreach (char c in vm.Take(63))
        {
            name.Append(char.IsAsciiLetterOrDigit(c) ? char.ToLowerInvariant(c) : '-');
        }

        string text = name.ToString().Trim('-');
        return text.Length == 0 ? null : text;
    }

    private byte[] Mac(string what) => [0xFE, .. SHA256.HashData(Encoding.UTF8.GetBytes($"{Id} {what}")).AsSpan(0, 5)];
}
