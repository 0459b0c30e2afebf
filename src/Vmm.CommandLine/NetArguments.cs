using System.CommandLine;
using Vmm.Spec;

namespace Vmm.CommandLine;

/// <summary>Networks on a command line: <c>--net</c> and <c>--publish</c>.</summary>
internal static class NetArguments
{
    /// <summary>The option for network devices.</summary>
    internal static Option<string[]> Nets() => new("--net")
    {
        Description = "Network device: tap=NAME, bridge=NAME or user[,publish=PORTS]" + SpecOption.Form("nets") + "; repeatable",
        HelpName = "net"
    };

    /// <summary>The option for published ports.</summary>
    internal static Option<string[]> Publish() => new("--publish", "-p")
    {
        Description = "Port of the host that leads to the guest, over --net user, which it implies: "
            + "[ADDRESS:]HOSTPORT:GUESTPORT[/tcp|/udp]; without an address that of 127.0.0.1; repeatable",
        HelpName = "ports"
    };

    /// <summary>The devices that texts name; what is wrong is noted.</summary>
    internal static IReadOnlyList<NetSpec> Read(IReadOnlyList<string> texts, List<string> problems)
    {
        List<NetSpec> nets = [];
        foreach (string text in texts)
        {
            if (SpecOption.TryParseNet(text, out NetSpec net, out string problem))
            {
                nets.Add(net);
            }
            else
            {
                problems.Add($"--net {text}: {problem}");
            }
        }

        return nets;
    }

    /// <summary>The user-mode network with the published ports; one that was not asked for comes behind the others.</summary>
    internal static IReadOnlyList<NetSpec> WithPublished(IReadOnlyList<NetSpec> given, IReadOnlyList<string> publish)
    {
        if (publish.Count == 0)
        {
            return given;
        }

        List<NetSpec> nets = [.. given];
        int at = nets.FindIndex(net => net.User is not null);
        if (at < 0)
        {
            at = nets.Count;
            nets.Add(new NetSpec { User = new UserNetSpec() });
        }

        nets[at] = nets[at] with { User = new UserNetSpec { Publish = [.. nets[at].User!.Publish, .. publish] } };
        return nets;
    }
}
