using System.Collections.Concurrent;
using Vmm.Daemon.Networks;
using Vmm.HostNet;

namespace Vmm.Daemon.Tests;

/// <summary>A host on which private networks are made of nothing.</summary>
internal sealed class FakeNetworks : INetworkHost
{
    /// <summary>What is there, by name.</summary>
    internal ConcurrentDictionary<string, FakeNetwork> There { get; } = new(StringComparer.Ordinal);

    /// <summary>Ranges in use.</summary>
    internal List<(Ipv4Subnet Subnet, string By)> InUse { get; } = [];

    /// <summary>Why nothing can be made; null: it can.</summary>
    internal string? Refuses { get; set; }

    internal bool Forwards { get; private set; }

    /// <summary>The host forwards IPv6.</summary>
    internal bool Forwards6 { get; private set; }

    /// <summary>An IPv6 range in use.</summary>
    internal Ipv6Prefix? InUse6 { get; set; }

    public string? Ipv6Problem { get; internal set; }

    public string? UserOf(Ipv6Prefix prefix) => prefix == InUse6 ? "eth0" : null;

    public IReadOnlyList<(Ipv4Subnet Subnet, string By)> Used(string? except) => [.. InUse];

    public bool IsFree(int number) => number != 0; // somebody has the first

    public INetworkObjects Open(PrivateNetwork network) => new Objects(this, network);

    public string? EndForwarding(bool ipv6)
    {
        bool did = ipv6 ? Forwards6 : Forwards;
        (Forwards, Forwards6) = (Forwards && ipv6, Forwards6 && !ipv6);
        return did ? "setting" : null;
    }

    /// <summary>A network that is there.</summary>
    internal sealed class FakeNetwork
    {
        internal IReadOnlyList<ReservedAddress> Reserved { get; set; } = [];

        internal string? Missing { get; set; }

        internal int Made { get; set; } = 1;
    }

    private sealed class Objects(FakeNetworks host, PrivateNetwork network) : INetworkObjects
    {
        public string? Missing(bool all) =>
            host.There.TryGetValue(network.Name, out FakeNetwork? there) ? there.Missing : "all of it was gone";

        public IReadOnlyList<string> Ensure(IReadOnlyList<ReservedAddress> reserved)
        {
            if (host.Refuses is { } why)
            {
                throw new HostNetException(why);
            }

            FakeNetwork there = host.There.GetOrAdd(network.Name, _ => new FakeNetwork());
            there.Made += there.Missing is null ? 0 : 1;
            there.Missing = null;
            there.Reserved = reserved;
            bool begins = !network.Isolated && !host.Forwards;
            host.Forwards |= !network.Isolated;
            host.Forwards6 |= !network.Isolated && network.Ipv6 is not null;
            return begins ? ["setting"] : [];
        }

        public void RemoveIpv6()
        {
        }

        public void Update(IReadOnlyList<ReservedAddress> reserved) => host.There[network.Name].Reserved = reserved;

        public void Remove()
        {
            if (host.Refuses is { } why)
            {
                throw new HostNetException(why);
            }

            host.There.TryRemove(network.Name, out _);
        }

        public void Dispose()
        {
        }
    }
}
