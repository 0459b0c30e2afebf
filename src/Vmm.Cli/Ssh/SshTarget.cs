using System.Net;
using System.Net.Sockets;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;
using Vmm.Spec;

namespace Vmm.Cli.Ssh;

/// <summary>Where the ssh server of a guest is reached from here.</summary>
/// <param name="Host">An address, or the name of the daemon's host.</param>
/// <param name="Port">The port there.</param>
internal sealed record SshTarget(string Host, int Port)
{
    /// <summary>Code of the problem that nothing tells an address: a guest that boots may do so later.</summary>
    internal const string NoAddress = "no-address";

    private const int ServerPort = 22;

    /// <summary>
    /// Finds it: a published port, its address on a private network (from the daemon's own host), addresses that the spec holds the guest
    /// to, what its agent says. An agent's word is a guest's: it is taken for an address and nothing else, and who answers there has to
    /// have the host key that is known of this VM.
    /// </summary>
    /// <exception cref="VmmApiException">It is not reached, and why.</exception>
    internal static async Task<SshTarget> FindAsync(DaemonSession session, VmInfo vm, CancellationToken cancellation)
    {
        string name = vm.Name;
        VmSpec spec = Read(name, await session.Client.SpecAsync(name, cancellation).ConfigureAwait(false));
        string? remote = session.Address.Socket is null ? new Uri(session.Address.Host).Host : null;
        if (Published(name, spec, remote) is { } published)
        {
            return published;
        }

        if (remote is null && First(vm.Addresses ?? []) is { } reserved)
        {
            return new SshTarget(reserved, ServerPort);
        }

        List<NetSpec> others = [.. spec.Nets.Where(net => net.User is null && net.Network is null)];
        if (others.Count == 0 && spec.Nets.Any(net => net.Network is not null))
        {
            string host = remote ?? "its host";
            throw new VmmApiException("not-reached", $"{name} is on a private network of {host}: only that host reaches it: "
                + "use vmmctl there, or publish a port by user-mode networking (--publish 2222:22)");
        }

        return others.Count == 0
            ? throw Unreached(name, spec.Nets.Count == 0 ? "has no network"
                : $"has user-mode networking, and no port of the host leads to its port {ServerPort}")
            : Fixed(others) ?? await AskAsync(session, name, spec, cancellation).ConfigureAwait(false);
    }

    private static VmmApiException Unreached(string name, string why) => new("not-reached", $"{name} {why}: publish one with "
        + $"'nets: [{{user: {{publish: [\"2222:{ServerPort}\"]}}}}]' in its spec (vmmctl vm edit {name}, while it is off), or use "
        + $"'vmmctl vm console {name}'");

    private static VmSpec Read(string name, string text)
    {
        try
        {
            return SpecReader.Read(text, name, "/");
        }
        catch (SpecException cause)
        {
            throw new VmmApiException(
                "spec-unread", $"{name}: its spec is none that this vmmctl knows: {cause.Problems[0].Message}", cause);
        }
    }

    private static SshTarget? Published(string name, VmSpec spec, string? remote)
    {
        List<PublishedPort> ports = [];
        foreach (string text in spec.Nets.SelectMany(net => net.User?.Publish ?? []))
        {
            if (PublishedPort.TryParse(text, out PublishedPort port, out _) && port is { GuestPort: ServerPort, IsUdp: false })
            {
                ports.Add(port);
            }
        }

        SshTarget? found = ports.Select(port => new SshTarget(Dialled(port.Address, remote), port.HostPort))
            .FirstOrDefault(target => target.Host.Length > 0);
        return found is null && ports.Count > 0
            ? throw new VmmApiException("not-reached",
                $"{name}: its port {ServerPort} is published to {remote} itself only, on {ports[0].Address}: publish it on another address "
                    + $"(0.0.0.0:{ports[0].HostPort}:{ServerPort}), or use vmmctl on that host")
            : found;
    }

    // Empty: not from here.
    private static string Dialled(string address, string? remote)
    {
        IPAddress parsed = IPAddress.Parse(address);
        return parsed.Equals(IPAddress.Any) ? remote ?? "127.0.0.1"
            : parsed.Equals(IPAddress.IPv6Any) ? remote ?? "::1"
            : remote is not null && IPAddress.IsLoopback(parsed) ? ""
            : address;
    }

    private static SshTarget? Fixed(IEnumerable<NetSpec> nets) =>
        First(nets.SelectMany(net => net.Addresses ?? [])) is { } address ? new SshTarget(address, ServerPort) : null;

    private static async Task<SshTarget> AskAsync(DaemonSession session, string name, VmSpec spec, CancellationToken cancellation)
    {
        const string Else = "give its network 'addresses' in the spec, or a port by user-mode networking (--publish 2222:22)";
        try
        {
            GuestFacts guest = await session.Client.GuestAsync(name, cancellation).ConfigureAwait(false);
            // What is behind user-mode networking has the host's own address.
            HashSet<string> hidden = new(
                spec.Nets.Where(net => net.User is not null).Select(net => net.Mac ?? ""), StringComparer.OrdinalIgnoreCase);
            return First(guest.Interfaces.Where(each => each.Mac is { } mac && !hidden.Contains(mac)).SelectMany(each => each.Addresses)) is
                { } address
                ? new SshTarget(address, ServerPort)
                : throw new VmmApiException(NoAddress, $"{name}: its agent tells of no address that is reached from here: {Else}");
        }
        catch (VmmApiException cause) when (cause.Problem.Code is not NoAddress)
        {
            throw new VmmApiException(
                NoAddress, $"{name}: nothing tells its address, since its agent does not: {cause.Problem.Detail}: {Else}", cause);
        }
    }

    /// <summary>The first that can be another machine's, IPv4 before IPv6; null: none. Prefix lengths are cut off.</summary>
    private static string? First(IEnumerable<string> addresses)
    {
        List<IPAddress> sound = [];
        foreach (string text in addresses)
        {
            if (IPAddress.TryParse(text.Split('/')[0], out IPAddress? address) && IsAnothers(address))
            {
                sound.Add(address);
            }
        }

        return sound.OrderBy(address => address.AddressFamily == AddressFamily.InterNetworkV6).FirstOrDefault()?.ToString();
    }

    // Not unspecified, loopback, link-local (RFC 3927, RFC 4291 section 2.5.6), multicast (RFC 5771) or above.
    private static bool IsAnothers(IPAddress address) => !IPAddress.IsLoopback(address)
        && (address.AddressFamily == AddressFamily.InterNetwork
            ? address.GetAddressBytes() is not ([0, ..] or [127, ..] or [169, 254, ..] or [>= 224, ..])
            : address is { IsIPv6LinkLocal: false, IsIPv6Multicast: false, IsIPv4MappedToIPv6: false, ScopeId: 0 }
                && !address.Equals(IPAddress.IPv6Any));
}
