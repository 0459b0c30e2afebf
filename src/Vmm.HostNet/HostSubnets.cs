using System.Globalization;
using System.Net.NetworkInformation;
using System.Net.Sockets;

namespace Vmm.HostNet;

/// <summary>The IPv4 ranges that this host knows: those of its interfaces and of its routes.</summary>
public static class HostSubnets
{
    private const string Routes = "/proc/net/route";

    // Private ranges (RFC 1918) that few use, from these up.
    private static readonly Ipv4Subnet[] s_choices =
    [
        .. Enumerable.Range(64, 64).Select(n => new Ipv4Subnet((10u << 24) | (214u << 16) | ((uint)n << 8), 24)),
        .. Enumerable.Range(200, 50).Select(n => new Ipv4Subnet((192u << 24) | (168u << 16) | ((uint)n << 8), 24)),
        .. Enumerable.Range(0, 256).Select(n => new Ipv4Subnet((172u << 24) | (30u << 16) | ((uint)n << 8), 24)),
    ];

    /// <summary>What is in use, with what uses it. The default route, which is everything, is not.</summary>
    /// <param name="except">An interface that does not count; null: all do.</param>
    public static IReadOnlyList<(Ipv4Subnet Subnet, string By)> Used(string? except)
    {
        List<(Ipv4Subnet Subnet, string By)> used = [];
        foreach (string line in File.ReadLines(Routes).Skip(1))
        {
            string[] words = line.Split('\t', StringSplitOptions.TrimEntries);
            if (words.Length > 7 && TryRead(words[1], out uint first) && TryRead(words[7], out uint mask) && mask != 0
                && !string.Equals(words[0], except, StringComparison.Ordinal))
            {
                int prefix = System.Numerics.BitOperations.PopCount(mask);
                used.Add((new Ipv4Subnet(first & mask, prefix), $"the route of {words[0]}"));
            }
        }

        foreach (NetworkInterface link in NetworkInterface.GetAllNetworkInterfaces())
        {
            if (string.Equals(link.Name, except, StringComparison.Ordinal))
            {
                continue;
            }

            foreach (UnicastIPAddressInformation address in link.GetIPProperties().UnicastAddresses)
            {
                if (address.Address.AddressFamily == AddressFamily.InterNetwork && address.PrefixLength is > 0 and <= 32)
                {
                    Ipv4Subnet range = new(0, address.PrefixLength);
                    used.Add((range with { First = Ipv4Subnet.Number(address.Address) & range.Mask }, link.Name));
                }
            }
        }

        return used;
    }

    /// <summary>A range that nothing uses; null: there is none.</summary>
    public static Ipv4Subnet? Choose(IReadOnlyList<(Ipv4Subnet Subnet, string By)> used)
    {
        foreach (Ipv4Subnet choice in s_choices)
        {
            if (!used.Any(u => u.Subnet.Overlaps(choice)))
            {
                return choice;
            }
        }

        return null;
    }

    // As the kernel writes it: hexadecimal, in the machine's order of bytes.
    private static bool TryRead(string text, out uint number)
    {
        bool read = uint.TryParse(text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out uint raw);
        number = System.Buffers.Binary.BinaryPrimitives.ReverseEndianness(raw);
        return read;
    }
}
