using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace Vmm.Spec;

/// <summary>A port of the host that leads to a port of the guest: <c>[ADDRESS:]HOSTPORT:GUESTPORT[/tcp|/udp]</c>.</summary>
/// <param name="Address">Address of the host, as the kernel would write it; IPv6 without brackets.</param>
/// <param name="HostPort">Port there, 1 to 65535.</param>
/// <param name="GuestPort">Port of the guest, 1 to 65535.</param>
/// <param name="IsUdp">UDP, and not TCP.</param>
public readonly record struct PublishedPort(string Address, int HostPort, int GuestPort, bool IsUdp)
{
    /// <summary>The most characters that one has.</summary>
    public const int MostText = 64;

    private const string Loopback = "127.0.0.1";

    /// <summary>Reads one. False, and what is wrong, for anything else.</summary>
    public static bool TryParse(string text, out PublishedPort port, out string problem)
    {
        port = default;
        problem = "expected [ADDRESS:]HOSTPORT:GUESTPORT[/tcp|/udp], e.g. 127.0.0.1:2222:22/tcp, with an IPv6 address in brackets";
        if (text.Length > MostText)
        {
            return false;
        }

        bool isUdp = text.EndsWith("/udp", StringComparison.Ordinal);
        string ports = isUdp || text.EndsWith("/tcp", StringComparison.Ordinal) ? text[..^4] : text;
        int guestAt = ports.LastIndexOf(':');
        int hostAt = guestAt < 1 ? -1 : ports.LastIndexOf(':', guestAt - 1);
        if (guestAt < 0 || !TryPort(ports.AsSpan(guestAt + 1), out int guest)
            || !TryPort(ports.AsSpan(hostAt + 1, guestAt - hostAt - 1), out int host))
        {
            return false;
        }

        if (!TryAddress(hostAt < 0 ? Loopback : ports[..hostAt], out string address))
        {
            return false;
        }

        port = new PublishedPort(address, host, guest, isUdp);
        problem = "";
        return true;
    }

    private static bool TryPort(ReadOnlySpan<char> text, out int port) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out port) && port is >= 1 and <= 65535 && text.Length <= 5;

    private static bool TryAddress(string text, out string address)
    {
        address = "";
        bool isV6 = text.Length > 2 && text[0] == '[' && text[^1] == ']';
        if (!IPAddress.TryParse(isV6 ? text[1..^1] : text, out IPAddress? read)
            || read.AddressFamily != (isV6 ? AddressFamily.InterNetworkV6 : AddressFamily.InterNetwork)
            || (isV6 && (read.ScopeId != 0 || text.Contains('%', StringComparison.Ordinal))))
        {
            return false;
        }

        address = read.ToString();
        return isV6 || string.Equals(address, text, StringComparison.Ordinal); // not 127.1, nor 017.0.0.1
    }
}
