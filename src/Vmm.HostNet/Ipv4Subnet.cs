using System.Buffers.Binary;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace Vmm.HostNet;

/// <summary>A range of IPv4 addresses, <c>192.0.2.0/24</c>: RFC 4632.</summary>
/// <param name="First">Its first address, as a number.</param>
/// <param name="Prefix">Bits that all of its addresses have alike.</param>
public readonly record struct Ipv4Subnet(uint First, int Prefix)
{
    /// <summary>How many addresses it has.</summary>
    public long Count => 1L << (32 - Prefix);

    /// <summary>Its mask as a number.</summary>
    public uint Mask => Prefix == 0 ? 0 : uint.MaxValue << (32 - Prefix);

    /// <summary>Reads one; what is behind the prefix must be zero.</summary>
    /// <param name="text">The text.</param>
    /// <param name="subnet">The range.</param>
    /// <param name="problem">What is wrong with it.</param>
    public static bool TryParse(string text, out Ipv4Subnet subnet, out string problem)
    {
        subnet = default;
        string[] parts = text.Split('/');
        if (parts.Length != 2 || !TryParseAddress(parts[0], out uint address)
            || !int.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out int prefix) || prefix is < 1 or > 32)
        {
            problem = "expected an IPv4 range such as 10.20.30.0/24";
            return false;
        }

        subnet = new Ipv4Subnet(address & (uint.MaxValue << (32 - prefix)), prefix);
        problem = subnet.First == address ? "" : $"is an address within a range; did you mean {subnet}?";
        return problem.Length == 0;
    }

    /// <summary>Reads an IPv4 address in the one form that the kernel writes.</summary>
    public static bool TryParseAddress(string text, out uint address)
    {
        address = 0;
        if (!IPAddress.TryParse(text, out IPAddress? parsed) || parsed.AddressFamily != AddressFamily.InterNetwork
            || !string.Equals(parsed.ToString(), text, StringComparison.Ordinal))
        {
            return false;
        }

        address = Number(parsed);
        return true;
    }

    /// <summary>An address as a number.</summary>
    public static uint Number(IPAddress address) => BinaryPrimitives.ReadUInt32BigEndian(address.GetAddressBytes());

    /// <summary>Whether an address is in it.</summary>
    public bool Contains(uint address) => (address & Mask) == First;

    /// <summary>Whether any address is in both.</summary>
    public bool Overlaps(Ipv4Subnet other) => Contains(other.First) || other.Contains(First);

    /// <summary>One of its addresses.</summary>
    /// <param name="number">From 0, which is the range's own.</param>
    public IPAddress Address(uint number)
    {
        byte[] bytes = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, First + number);
        return new IPAddress(bytes);
    }

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Address(0)}/{Prefix}");
}
