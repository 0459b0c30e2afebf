using System.Globalization;
using System.Net;

namespace Vmm.HostNet;

/// <summary>IPv6 of this host: whether there is any, which addresses it has, and its settings (sysctl, net.ipv6.conf).</summary>
public static class HostIpv6
{
    private const string Addresses = "/proc/net/if_inet6", Settings = "/proc/sys/net/ipv6/conf";
    private const string Forwarding = "forwarding", AcceptRa = "accept_ra";

    private static readonly Lock s_forwarding = new();

    /// <summary>Why this host has no IPv6; null: it has.</summary>
    public static string? Problem =>
        !File.Exists(Addresses) ? "this host has no IPv6 (ipv6.disable=1 on its command line, or a kernel without)"
        : Read("all", "disable_ipv6") is "1" ? "IPv6 is switched off on this host (net.ipv6.conf.all.disable_ipv6)"
        : null;

    /// <summary>What of the host has an address whose network overlaps a range; null: nothing.</summary>
    /// <param name="prefix">The range.</param>
    /// <param name="except">An interface that does not count; null: all do.</param>
    public static string? UserOf(Ipv6Prefix prefix, string? except)
    {
        foreach ((string link, byte[] address, int bits) in All())
        {
            if (!string.Equals(link, except, StringComparison.Ordinal) && prefix.Overlaps(address, bits))
            {
                return link;
            }
        }

        return null;
    }

    /// <summary>The addresses of an interface.</summary>
    internal static List<IPAddress> Of(string link) => [.. All()
        .Where(a => string.Equals(a.Link, link, StringComparison.Ordinal)).Select(a => new IPAddress(a.Address))];

    /// <summary>A setting of an interface, or of <c>all</c> or <c>default</c>; null: there is none.</summary>
    internal static string? Read(string link, string name)
    {
        try
        {
            return File.ReadAllText(Path.Combine(Settings, link, name)).Trim();
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>Changes a setting; one that is so already is not written.</summary>
    /// <exception cref="IOException">It cannot be changed.</exception>
    /// <exception cref="UnauthorizedAccessException">It cannot be changed.</exception>
    internal static void Write(string link, string name, string value)
    {
        if (!string.Equals(Read(link, name), value, StringComparison.Ordinal))
        {
            File.WriteAllText(Path.Combine(Settings, link, name), value);
        }
    }

    /// <summary>
    /// Switches forwarding of an interface, or of <c>all</c>: the host forwards by that one alone. The kernel makes routers of all
    /// interfaces then, which take no advertisements of other routers; and with any that becomes one it forgets the default routes that it
    /// has from those. So the others take advertisements as routers (2) meanwhile, which keeps the routes, and are then what they were.
    /// </summary>
    /// <exception cref="IOException">It cannot be changed.</exception>
    /// <exception cref="UnauthorizedAccessException">It cannot be changed.</exception>
    internal static void SetForwarding(string link, string value)
    {
        lock (s_forwarding)
        {
            if (string.Equals(Read(link, Forwarding), value, StringComparison.Ordinal))
            {
                return;
            }

            List<(string Link, string? Forwarding, string? AcceptRa)> others = [.. Directory.EnumerateDirectories(Settings)
                .Select(path => Path.GetFileName(path))
                .Where(name => name is not "all" && !string.Equals(name, link, StringComparison.Ordinal))
                .Select(name => (name, Read(name, Forwarding), Read(name, AcceptRa)))];
            Each(others, other => other.AcceptRa is "1", other => Write(other.Link, AcceptRa, "2"));
            try
            {
                Write(link, Forwarding, value);
            }
            finally
            {
                Each(others, other => other.Forwarding is not null, other => Write(other.Link, Forwarding, other.Forwarding!));
                Each(others, other => other.AcceptRa is "1", other => Write(other.Link, AcceptRa, "1"));
            }
        }
    }

    private static void Each<T>(List<T> all, Predicate<T> which, Action<T> what)
    {
        foreach (T one in all.FindAll(which))
        {
            try
            {
                what(one);
            }
            catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
            {
                _ = cause; // an interface that is gone meanwhile
            }
        }
    }

    private static List<(string Link, byte[] Address, int Bits)> All()
    {
        List<(string, byte[], int)> found = [];
        if (File.Exists(Addresses))
        {
            foreach (string line in File.ReadLines(Addresses))
            {
                string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
                if (words.Length > 5 && words[0].Length == 32
                    && int.TryParse(words[2], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out int bits))
                {
                    found.Add((words[5], Convert.FromHexString(words[0]), bits));
                }
            }
        }

        return found;
    }
}
