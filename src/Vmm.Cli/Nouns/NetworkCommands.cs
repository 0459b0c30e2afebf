using System.CommandLine;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Nouns;

/// <summary><c>vmmctl network …</c>: private networks of the daemon.</summary>
internal static class NetworkCommands
{
    internal static Command Create(GlobalOptions options)
    {
        Noun network = new("network", "Private networks of the daemon: addresses and names for VMs, and a way out", options);
        Argument<string> name = new("name") { Description = "Name of the network" };
        network.Add("list", "All networks, and which VMs use them", [], (session, _, cancellation) => ListAsync(session, cancellation));
        network.Add("show", "One network, with the addresses of its VMs", name, async (session, which, cancellation) =>
            Show(session, await session.Client.NetworkAsync(which, cancellation).ConfigureAwait(false)));
        AddCreate(network, name);
        AddSet(network, name);
        network.Add("delete", "Delete a network that no VM uses: nothing of it stays", name, async (session, which, cancellation) =>
        {
            await session.Client.DeleteNetworkAsync(which, cancellation).ConfigureAwait(false);
            if (!session.IsJson)
            {
                await session.Out.WriteLineAsync($"{which} is deleted").ConfigureAwait(false);
            }

            return ExitCodes.Done;
        });
        return network.Command;
    }

    private static void AddCreate(Noun network, Argument<string> name)
    {
        Option<string?> subnet = new("--subnet")
        {
            Description = "Its IPv4 range, /16 to /29, such as 10.20.30.0/24; one that nothing on the host uses by default",
            HelpName = "range",
        };
        Option<bool> isolated = new("--isolated") { Description = "It leads nowhere: its VMs reach each other only" };
        Option<string?> ipv6 = new("--ipv6")
        {
            Description = "Its IPv6 range, a /64 such as fd00:1:2:3::/64; auto, one of its own made at random; or none, by default",
            HelpName = "range",
        };
        network.Add("create", "Make a network: a bridge with DHCP, names and NAT", [name, subnet, ipv6, isolated],
            async (session, parsed, cancellation) => Show(session, await session.Client.CreateNetworkAsync(new NetworkRequest(
                parsed.GetValue(name)!, parsed.GetValue(subnet), parsed.GetValue(isolated), parsed.GetValue(ipv6)), cancellation)
                .ConfigureAwait(false)));
    }

    private static void AddSet(Noun network, Argument<string> name)
    {
        Option<string> ipv6 = new("--ipv6")
        {
            Description = "Its IPv6 range, a /64 such as fd00:1:2:3::/64; auto, one made at random if it has none; or none",
            HelpName = "range",
            Required = true,
        };
        network.Add("set", "Change a network; devices of VMs that run follow when those are started again", [name, ipv6],
            async (session, parsed, cancellation) => Show(session, await session.Client.ChangeNetworkAsync(
                parsed.GetValue(name)!, new NetworkChange(parsed.GetValue(ipv6)!), cancellation).ConfigureAwait(false)));
    }

    private static async Task<int> ListAsync(DaemonSession session, CancellationToken cancellation)
    {
        NetworkList list = await session.Client.NetworksAsync(cancellation).ConfigureAwait(false);
        if (session.IsJson)
        {
            return session.Json(list, RestJson.Default.NetworkList);
        }

        Table table = new("NAME", "STATE", "SUBNET", "IPV6", "BRIDGE", "LEADS", "USED BY");
        foreach (NetworkInfo network in list.Networks)
        {
            table.Add(
                network.Name, network.State, network.Subnet, network.Ipv6 ?? "-", network.Bridge, Leads(network), Users(network));
        }

        return session.Table(table);
    }

    private static int Show(DaemonSession session, NetworkInfo network) =>
        session.IsJson ? session.Json(network, RestJson.Default.NetworkInfo) : session.Properties(
        [
            ("name", network.Name),
            ("state", network.Problem is { } problem ? $"{network.State}: {problem}" : network.State),
            ("subnet", network.Subnet),
            ("IPv6", network.Ipv6Problem is { } none ? $"{network.Ipv6}, not at present: {none}" : network.Ipv6 ?? "none"),
            ("host", $"{Both(network.Gateway, network.Gateway6)} on {network.Bridge}"),
            ("DHCP and DNS", $"{Both(network.Server, network.Server6)}, domain {network.Domain}"),
            ("leads", Leads(network)), ("created", Time(network.Created)), ("used by", Users(network)),
            .. network.Addresses.Select(a =>
                (Both(a.Address, a.Ipv6), $"{a.Vm} {a.Mac}" + (a.HostName is null ? ", no name" : $", {a.HostName}"))),
        ]);

    private static string Both(string ipv4, string? ipv6) => ipv6 is null ? ipv4 : $"{ipv4} {ipv6}";

    private static string Leads(NetworkInfo network) => network.Isolated ? "nowhere" : "out by NAT";

    private static string Users(NetworkInfo network) => network.UsedBy.Count == 0 ? "-" : string.Join(", ", network.UsedBy);
}
