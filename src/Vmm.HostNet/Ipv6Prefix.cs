using System.Buffers.Binary;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Vmm.Interop;

namespace Vmm.HostNet;

/// <summary>A range of IPv6 addresses of one link, <c>2001:db8:1:2::/64</c>: RFC 4291.</summary>
/// <param name="Network">The 64 bits that all of its addresses have alike.</param>
public readonly record struct Ipv6Prefix(ulong Network)
{
    /// <summary>Bits of its prefix: those of every link, RFC 4291 section 2.5.4.</summary>
    public const int Length = 64;

    /// <summary>A new one of those that anybody may use inside: 40 random bits behind fd, RFC 4193 section 3.2.</summary>
    public static Ipv6Prefix NewLocal()
    {
        Span<byte> bytes = stackalloc byte[8];
        HostRandom.Fill(bytes[1..6]);
        bytes[0] = 0xFD;
        bytes[6..].Clear(); // the first subnet
        return new Ipv6Prefix(BinaryPrimitives.ReadUInt64BigEndian(bytes));
    }

    /// <summary>Reads one; what is behind the prefix must be zero.</summary>
    /// <param name="text">The text.</param>
    /// <param name="prefix">The range.</param>
    /// <param name="problem">What is wrong with it.</param>
    public static bool TryParse(string text, out Ipv6Prefix prefix, out string problem)
    {
        prefix = default;
        string[] parts = text.Split('/');
        if (parts.Length != 2 || parts[0].Contains('%', StringComparison.Ordinal) || !IPAddress.TryParse(parts[0], out IPAddress? address)
            || address.AddressFamily != AddressFamily.InterNetworkV6
            || !int.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out int length) || length != Length)
        {
            problem = "expected an IPv6 range of 64 bits such as fd00:1:2:3::/64";
            return false;
        }

        byte[] bytes = address.GetAddressBytes();
        prefix = new Ipv6Prefix(BinaryPrimitives.ReadUInt64BigEndian(bytes));
        problem = bytes.AsSpan(8).ContainsAnyExcept((byte)0) ? $"is an address within a range; did you mean {prefix}?"
            : IsOfHosts(bytes) ? ""
            : "has no addresses that a host can have: expected one of fc00::/7 or 2000::/3";
        return problem.Length == 0;
    }

    /// <summary>One of its addresses.</summary>
    /// <param name="number">From 0, which is the range's own.</param>
    public IPAddress Address(uint number)
    {
        byte[] bytes = new byte[16];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, Network);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(12), number);
        return new IPAddress(bytes);
    }

    /// <summary>Whether any address is in both: an address's first bits, as many as a network has.</summary>
    /// <param name="address">The address, 16 bytes.</param>
    /// <param name="bits">Bits of its network.</param>
    public bool Overlaps(ReadOnlySpan<byte> address, int bits)
    {
        int alike = Math.Min(bits, Length);
        return alike == 0 || (BinaryPrimitives.ReadUInt64BigEndian(address) ^ Network) >> (Length - alike) == 0;
    }

    /// <summary>The link-local address of a device: fe80::/64 with the modified EUI-64 of its MAC address, RFC 4291 appendix A.</summary>
    public static IPAddress LinkLocal(ReadOnlySpan<byte> mac) => new(
        [0xFE, 0x80, 0, 0, 0, 0, 0, 0, (byte)(mac[0] ^ 2), mac[1], mac[2], 0xFF, 0xFE, mac[3], mac[4], mac[5]]);

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Address(0)}/{Length}");

    // Unique local (RFC 4193), global unicast (RFC 4291 section 2.4).
    private static bool IsOfHosts(ReadOnlySpan<byte> address) => (address[0] & 0xFE) == 0xFC || (address[0] & 0xE0) == 0x20;
}
