namespace Vmm.Contracts.Rest;

/// <summary>A wish for a private network.</summary>
/// <param name="Name">Its name: 1 to 64 letters, digits, <c>. _ -</c>, a letter or digit first.</param>
/// <param name="Subnet">Its IPv4 range, /16 to /29; null: one that nothing on the host uses.</param>
/// <param name="Isolated">It leads nowhere: its VMs reach each other only.</param>
/// <param name="Ipv6">Its IPv6 range, a /64; null or <c>auto</c>: a new one of those for use inside; <c>none</c>: it has none.</param>
public sealed record NetworkRequest(string Name, string? Subnet = null, bool Isolated = false, string? Ipv6 = null);

/// <summary>What is to be another of a private network.</summary>
/// <param name="Ipv6">Its IPv6 range, a /64; <c>auto</c>: a new one of those for use inside, unless it has one; <c>none</c>: none.</param>
public sealed record NetworkChange(string Ipv6);

/// <summary>A private network: a bridge of its own with addresses and names for VMs, and a way out.</summary>
/// <param name="Name">Its name.</param>
/// <param name="State"><c>up</c>, or <c>failed</c>: something of it is missing, and is tried again.</param>
/// <param name="Problem">Why it is not up; null when it is.</param>
/// <param name="Subnet">Its IPv4 range.</param>
/// <param name="Gateway">The host's address on it.</param>
/// <param name="Server">Where DHCP and DNS are.</param>
/// <param name="Bridge">Its bridge.</param>
/// <param name="Isolated">It leads nowhere.</param>
/// <param name="Domain">The domain of its names.</param>
/// <param name="Created">When it was made.</param>
/// <param name="Addresses">Addresses that are reserved, in their order.</param>
/// <param name="UsedBy">VMs that use it.</param>
/// <param name="Ipv6">Its IPv6 range; null: it has none.</param>
/// <param name="Gateway6">The host's IPv6 address on it.</param>
/// <param name="Server6">Where DNS is by IPv6.</param>
/// <param name="Ipv6Problem">Why it has no IPv6 at present; null: it has, or is to have none.</param>
public sealed record NetworkInfo(
    string Name,
    string State,
    string? Problem,
    string Subnet,
    string Gateway,
    string Server,
    string Bridge,
    bool Isolated,
    string Domain,
    DateTimeOffset Created,
    IReadOnlyList<NetworkAddress> Addresses,
    IReadOnlyList<string> UsedBy,
    string? Ipv6 = null,
    string? Gateway6 = null,
    string? Server6 = null,
    string? Ipv6Problem = null);

/// <summary>An address that is reserved for a device.</summary>
/// <param name="Vm">The VM.</param>
/// <param name="Mac">MAC address of the device.</param>
/// <param name="Address">The address.</param>
/// <param name="HostName">The name by which the VM is found; null: its name makes none.</param>
/// <param name="Ipv6">The IPv6 address; null: the network has none.</param>
public sealed record NetworkAddress(string Vm, string Mac, string Address, string? HostName, string? Ipv6 = null);

/// <summary>Private networks, by name.</summary>
/// <param name="Networks">The networks.</param>
public sealed record NetworkList(IReadOnlyList<NetworkInfo> Networks);
