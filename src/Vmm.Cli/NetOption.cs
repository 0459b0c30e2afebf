using System.Globalization;
using Vmm.Spec;

namespace Vmm.Cli;

/// <summary>Reads <c>--net tap=NAME[,mac=M][,queues=N][,mtu=N][,transport=…][,vhost=…][,vnode=K]</c>.</summary>
internal static class NetOption
{
    private static readonly string[] Keys = ["tap", "mac", "queues", "mtu", "transport", "vhost", "vnode"];

    internal static bool TryParse(string text, out NetSpec net, out string problem)
    {
        net = new NetSpec();
        problem = "";
        foreach (string part in text.Split(','))
        {
            int equals = part.IndexOf('=', StringComparison.Ordinal);
            string? expected = equals < 0
                ? $"expected key=value; known keys: {string.Join(", ", Keys)}"
                : Apply(part[..equals], part[(equals + 1)..], ref net);
            if (expected is not null)
            {
                problem = $"--net {text}: {part}: {expected}";
                return false;
            }
        }

        if (net.Tap.Length == 0)
        {
            problem = $"--net {text}: tap=NAME is missing";
        }

        return problem.Length == 0;
    }

    private static string? Apply(string key, string value, ref NetSpec net)
    {
        switch (key)
        {
            case "tap":
                net = net with { Tap = value };
                return null;
            case "mac":
                net = net with { Mac = value };
                return null;
            case "queues" or "mtu" or "vnode":
                if (!int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int number))
                {
                    return "expected a number";
                }

                net = key is "queues" ? net with { Queues = number } : key is "vnode" ? net with { Vnode = number } : net with { Mtu = number };
                return null;
            case "transport":
                bool known = Names.TryParse(value, out VirtioTransport transport);
                net = net with { Transport = transport };
                return known ? null : "expected pci or mmio";
            case "vhost":
                bool use = Names.TryParse(value, out VhostUse vhost);
                net = net with { Vhost = vhost };
                return use ? null : "expected auto, on or off";
            default:
                return Names.Nearest(key, Keys) is { } near ? $"unknown; did you mean {near}?" : "unknown; known: " + string.Join(", ", Keys);
        }
    }
}
