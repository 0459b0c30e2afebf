using Vmm.HostNet;

namespace Vmm.Daemon.Networks;

/// <summary>What private networks are made of on this host.</summary>
internal interface INetworkHost
{
    /// <summary>Ranges that the host uses, and what does.</summary>
    /// <param name="except">An interface that does not count; null: all do.</param>
    IReadOnlyList<(Ipv4Subnet Subnet, string By)> Used(string? except);

    /// <summary>No bridge has this number.</summary>
    bool IsFree(int number);

    /// <summary>The objects of a network; nothing is made yet.</summary>
    INetworkObjects Open(PrivateNetwork network);

    /// <summary>No network leads anywhere any more: the host is as it was before the first that did.</summary>
    /// <returns>Something changed by that.</returns>
    /// <exception cref="HostNetException">It cannot be.</exception>
    bool EndForwarding();
}

/// <summary>The objects of one network on the host. One thread at a time. Disposing leaves them.</summary>
internal interface INetworkObjects : IDisposable
{
    /// <summary>What is missing of it, for people; null: nothing.</summary>
    /// <param name="all">Also what takes a moment to look at.</param>
    /// <exception cref="HostNetException">Something is in its place.</exception>
    string? Missing(bool all);

    /// <summary>Makes what is missing.</summary>
    /// <param name="reserved">Addresses and names.</param>
    /// <returns>The host forwards packets from now on, and did not before.</returns>
    /// <exception cref="HostNetException">It cannot be made.</exception>
    bool Ensure(IReadOnlyList<ReservedAddress> reserved);

    /// <summary>Addresses or names have changed.</summary>
    void Update(IReadOnlyList<ReservedAddress> reserved);

    /// <summary>Removes all of it; what is not there is fine.</summary>
    /// <exception cref="HostNetException">Something stays.</exception>
    void Remove();
}
