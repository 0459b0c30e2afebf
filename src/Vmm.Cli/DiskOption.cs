using System.Globalization;
using Vmm.Spec;

namespace Vmm.Cli;

/// <summary>Reads <c>--disk path[,ro][,queues=N][,queue-size=N][,serial=S][,cache=…][,transport=…][,vnode=K]</c>.</summary>
internal static class DiskOption
{
    private static readonly string[] Keys = ["ro", "queues", "queue-size", "serial", "cache", "transport", "vnode"];

    internal static bool TryParse(string text, out DiskSpec disk, out string problem)
    {
        string[] parts = text.Split(',');
        disk = new DiskSpec { Path = parts[0] };
        problem = "";
        if (parts[0].Length == 0)
        {
            problem = $"--disk {text}: the path comes first";
            return false;
        }

        for (int i = 1; i < parts.Length; i++)
        {
            int equals = parts[i].IndexOf('=', StringComparison.Ordinal);
            string key = equals < 0 ? parts[i] : parts[i][..equals];
            string value = equals < 0 ? "" : parts[i][(equals + 1)..];
            string? expected = Apply(key, value, equals >= 0, ref disk);
            if (expected is not null)
            {
                problem = $"--disk {text}: {parts[i]}: {expected}";
                return false;
            }
        }

        return true;
    }

    private static string? Apply(string key, string value, bool hasValue, ref DiskSpec disk)
    {
        switch (key)
        {
            case "ro":
                disk = disk with { ReadOnly = true };
                return hasValue ? "ro takes no value" : null;
            case "queues" or "queue-size" or "vnode":
                if (!int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int number))
                {
                    return "expected a number";
                }

                disk = key is "queues" ? disk with { Queues = number } : key is "vnode" ? disk with { Vnode = number } : disk with { QueueSize = number };
                return null;
            case "serial":
                disk = disk with { Serial = value };
                return null;
            case "cache":
                bool cacheKnown = Names.TryParse(value, out DiskCache cache);
                disk = disk with { Cache = cache };
                return cacheKnown ? null : "expected direct or buffered";
            case "transport":
                bool transportKnown = Names.TryParse(value, out VirtioTransport transport);
                disk = disk with { Transport = transport };
                return transportKnown ? null : "expected pci or mmio";
            default:
                return Names.Nearest(key, Keys) is { } near ? $"unknown; did you mean {near}?" : "unknown; known: " + string.Join(", ", Keys);
        }
    }
}
