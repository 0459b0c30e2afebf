using System.Net.Sockets;
using System.Text;

namespace Vmm.Daemon;

/// <summary>Tells systemd how the daemon stands, sd_notify(3): one datagram to the socket in NOTIFY_SOCKET, nothing when there is none.</summary>
internal static class ServiceManager
{
    /// <summary>The first descriptor that a service manager passes (SD_LISTEN_FDS_START).</summary>
    internal const ulong FirstSocket = 3;

    /// <summary>True when the listening unix socket was made by the service manager and passed as <see cref="FirstSocket"/>, sd_listen_fds(3).</summary>
    internal static bool PassesSocket =>
        string.Equals(Environment.GetEnvironmentVariable("LISTEN_PID"), Environment.ProcessId.ToString(System.Globalization.CultureInfo.InvariantCulture), StringComparison.Ordinal)
        && string.Equals(Environment.GetEnvironmentVariable("LISTEN_FDS"), "1", StringComparison.Ordinal);

    internal static void Tell(string state)
    {
        if (Environment.GetEnvironmentVariable("NOTIFY_SOCKET") is not { Length: > 1 } path)
        {
            return;
        }

        using Socket socket = new(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        try
        {
            // '@' stands for the zero of an abstract name.
            socket.SendTo(Encoding.UTF8.GetBytes(state), new UnixDomainSocketEndPoint(path[0] == '@' ? "\0" + path[1..] : path));
        }
        catch (SocketException)
        {
            // A service manager that went away is no reason to stop.
        }
    }
}
