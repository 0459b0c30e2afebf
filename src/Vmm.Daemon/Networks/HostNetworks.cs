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
    public bool IsFree(int number) => PrivateBridge.IsFree(number);

    /// <inheritdoc/>
    public INetworkObjects Open(PrivateNetwork network)
    {
        Directory.CreateDirectory(folder, OwnerFolder);
        return new Objects(_rules, network, new NetworkServices(network, Path.Combine(folder, network.Id), user));
    }

    /// <inheritdoc/>
    public bool EndForwarding() => _rules.EndForwarding();

    private sealed class Objects(NetworkRules rules, PrivateNetwork network, NetworkServices services) : INetworkObjects
    {
        public string? Missing(bool all)
        {
            services.UpdateServers();
            return !PrivateBridge.IsThere(network) ? $"its bridge {network.Bridge}"
                : !services.IsRunning ? "its dnsmasq"
                : !network.Isolated && !NetworkRules.IsForwarding ? "the host's forwarding"
                : all && !NetworkRules.AreThere(network) ? "its table of nftables"
                : null;
        }

        public bool Ensure(IReadOnlyList<ReservedAddress> reserved)
        {
            PrivateBridge.Ensure(network);
            rules.Apply(network);
            bool changed = !network.Isolated && rules.BeginForwarding();
            services.Ensure(reserved);
            return changed;
        }

        public void Update(IReadOnlyList<ReservedAddress> reserved) => services.Update(reserved);

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
