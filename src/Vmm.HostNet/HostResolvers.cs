using System.Net;

namespace Vmm.HostNet;

/// <summary>
/// Name servers of the host that a guest can reach. One on the host's loopback (systemd-resolved, dnsmasq) it cannot, since passt is not to
/// show it what listens there; those that systemd-resolved asks itself take its place.
/// </summary>
internal static class HostResolvers
{
    private const string Usual = "/etc/resolv.conf", BehindResolved = "/run/systemd/resolve/resolv.conf";
    private const int Most = 3, MostBytes = 64 << 10; // resolv.conf(5): MAXNS

    /// <summary>The servers, none twice, at most three.</summary>
    /// <param name="root">Folder in front of the files' paths.</param>
    internal static List<IPAddress> Find(string root = "/")
    {
        List<IPAddress> found = Read(Path.Join(root, Usual));
        return found.Count > 0 ? found : Read(Path.Join(root, BehindResolved));
    }

    private static List<IPAddress> Read(string path)
    {
        List<IPAddress> servers = [];
        try
        {
            using FileStream file = File.OpenRead(path);
            byte[] bytes = new byte[MostBytes];
            int length = file.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false);
            foreach (string line in System.Text.Encoding.UTF8.GetString(bytes, 0, length).Split('\n'))
            {
                string[] words = line.Split((char[])[' ', '\t', '\r'], StringSplitOptions.RemoveEmptyEntries);
                if (words is ["nameserver", _, ..] && IPAddress.TryParse(words[1], out IPAddress? server) && !IPAddress.IsLoopback(server)
                    && !server.IsIPv6LinkLocal && !servers.Contains(server) && servers.Count < Most)
                {
                    servers.Add(server);
                }
            }
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            // No such file: no such servers.
        }

        return servers;
    }
}
