using Vmm.HostNet;

namespace Vmm.Daemon.Networks;

/// <summary>Private networks in the network namespace of the daemon.</summary>
/// <param name="folder">Folder of files that a boot of the host may take. Made with mode 0700.</param>
/// <param name="user">The user that dnsmasq becomes.</param>
internal sealed class HostNetworks(string folder, uint user) : INetworkHost
{
    private const UnixFileMode OwnerFolder = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    private readonly NetworkRules _rules = new(folder);

    /// <inheritdoc/>
    public IReadOnlyList<(Ipv4Subnet Subnet, string By)> Used(string? except) => HostSubnets.Used(except);

    /// <inheritdoc/>
    public string? Ipv6Problem => HostIpv6.Problem;

    /// <inheritdoc/>
    public string? UserOf(Ipv6Prefix prefix) => HostIpv6.UserOf(prefix, except: null);

    /// <inheritdoc/>
    public bool IsFree(int number) => PrivateBridge.IsFree(number);

    /// <inheritdoc/>
    public INetworkObjects Open(PrivateNetwork network)
    {
        Directory.CreateDirectory(folder, OwnerFolder);
        return new Objects(_rules, network, new NetworkServices(network, Path.Combine(folder, network.Id), user));
    }

    /// <inheritdoc/>
    public string? EndForwarding(bool ipv6) => _rules.EndForwarding(ipv6);

    private sealed class Objects(NetworkRules rules, PrivateNetwork network, NetworkServices services) : INetworkObjects
    {
        // Without IPv6 while the host has none.
        private PrivateNetwork Possible => network.Ipv6 is null || HostIpv6.Problem is null ? network : network with { Ipv6 = null };

        public string? Missing(bool all)
        {
            PrivateNetwork now = Possible;
            services.UpdateServers();
            return !PrivateBridge.IsThere(now) ? $"its bridge {now.Bridge} was gone"
                : now != services.Network ? $"the host's IPv6 {(now.Ipv6 is null ? "went" : "came")}"
                : !PrivateBridge.HasIpv6(now) ? "its IPv6 was gone"
                : !services.IsRunning ? "its dnsmasq was gone"
                : !rules.Forwards(now) ? "the host's forwarding was off"
                : all && !NetworkRules.AreThere(now) ? "its table of nftables was gone"
                : null;
        }

        public IReadOnlyList<string> Ensure(IReadOnlyList<ReservedAddress> reserved)
        {
            PrivateNetwork now = Possible;
            PrivateBridge.Ensure(now);
            rules.Apply(now);
            IReadOnlyList<string> changed = rules.BeginForwarding(now);
            services.Network = now;
            services.Ensure(reserved);
            return changed;
        }

        public void Update(IReadOnlyList<ReservedAddress> reserved) => services.Update(reserved);

        public void RemoveIpv6() => PrivateBridge.RemoveIpv6(network);

        // The rules last: no packet goes by them.
        public void Remove()
        {
            services.Remove();
            PrivateBridge.Remove(network);
            NetworkRules.Remove(network);
        }

        public void Dispose() => services.Dispose();
    }
}
