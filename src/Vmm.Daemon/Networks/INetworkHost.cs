using Vmm.HostNet;

namespace Vmm.Daemon.Networks;

/// <summary>What private networks are made of on this host.</summary>
internal interface INetworkHost
{
    /// <summary>Ranges that the host uses, and what does.</summary>
    /// <param name="except">An interface that does not count; null: all do.</param>
    IReadOnlyList<(Ipv4Subnet Subnet, string By)> Used(string? except);

    /// <summary>Why the host has no IPv6; null: it has.</summary>
    string? Ipv6Problem { get; }

    /// <summary>What of the host uses an IPv6 range; null: nothing.</summary>
    string? UserOf(Ipv6Prefix prefix);

    /// <summary>No bridge has this number.</summary>
    bool IsFree(int number);

    /// <summary>The objects of a network; nothing is made yet.</summary>
    INetworkObjects Open(PrivateNetwork network);

    /// <summary>No network leads anywhere any more: the host is as it was before the first that did.</summary>
    /// <param name="ipv6">By IPv6; else by IPv4.</param>
    /// <returns>The setting that changed by that; null: none.</returns>
    /// <exception cref="HostNetException">It cannot be.</exception>
    string? EndForwarding(bool ipv6);
}

/// <summary>The objects of one network on the host. One thread at a time. Disposing leaves them.</summary>
internal interface INetworkObjects : IDisposable
{
    /// <summary>What happened to it, for people, so that it is to be made again; null: nothing.</summary>
    /// <param name="all">Also what takes a moment to look at.</param>
    /// <exception cref="HostNetException">Something is in its place.</exception>
    string? Missing(bool all);

    /// <summary>Makes what is missing.</summary>
    /// <param name="reserved">Addresses and names.</param>
    /// <returns>Settings of the host by which it forwards packets from now on, and did not before.</returns>
    /// <exception cref="HostNetException">It cannot be made.</exception>
    IReadOnlyList<string> Ensure(IReadOnlyList<ReservedAddress> reserved);

    /// <summary>Addresses or names have changed.</summary>
    void Update(IReadOnlyList<ReservedAddress> reserved);

    /// <summary>Takes its IPv6 from it: it is to be another's.</summary>
    /// <exception cref="HostNetException">It cannot be.</exception>
    void RemoveIpv6();

    /// <summary>Removes all of it; what is not there is fine.</summary>
    /// <exception cref="HostNetException">Something stays.</exception>
    void Remove();
}
