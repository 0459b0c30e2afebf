using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http;
using Vmm.Daemon.Api;

namespace Vmm.Daemon.Access;

/// <summary>
/// Who limits are counted for: an IPv4 address, the /64 of an IPv6 address (one host has all of it, RFC 4291, section 2.5.4), or a user of
/// this host.
/// </summary>
internal static class PeerKey
{
    private const int PrefixBytes = 8;

    /// <summary>What cannot be told apart is one peer.</summary>
    internal const string Unknown = "unknown";

    /// <summary>The key of an address.</summary>
    internal static string Of(IPAddress address)
    {
        IPAddress plain = address.IsIPv4MappedToIPv6 ? address.MapToIPv4() : address;
        if (plain.AddressFamily != AddressFamily.InterNetworkV6)
        {
            return plain.ToString();
        }

        byte[] bytes = plain.GetAddressBytes();
        bytes.AsSpan(PrefixBytes).Clear();
        return new IPAddress(bytes) + "/64";
    }

    /// <summary>The key of a user.</summary>
    internal static string Of(Peer peer) => $"uid={peer.UserId}";

    /// <summary>The key of the other end of a TCP connection.</summary>
    internal static string Of(ConnectionContext connection) =>
        connection.RemoteEndPoint is IPEndPoint { Address: var address } ? Of(address) : Unknown;

    /// <summary>The key of who sent a request.</summary>
    internal static string Of(HttpContext context) =>
        context.Connection.RemoteIpAddress is { } address ? Of(address)
        : context.Features.Get<IConnectionSocketFeature>() is { } connection && Peer.Of(connection.Socket) is { } peer ? Of(peer)
        : Unknown;
}
