using System.Net.Sockets;

namespace Vmm.Daemon.Moves;

/// <summary>A link whose other end is gone without a word is noticed within seconds, also when there is nothing to send.</summary>
internal static class DeadLinks
{
    private const int Tcp = 6, UserTimeout = 18; // IPPROTO_TCP, TCP_USER_TIMEOUT: tcp(7), RFC 5482
    private const int Idle = 5, Interval = 2, Probes = 4, Milliseconds = 13_000;

    /// <summary>Sets it up.</summary>
    internal static void Notice(Socket socket)
    {
        socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive, true);
        socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveTime, Idle);
        socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveInterval, Interval);
        socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveRetryCount, Probes);
        socket.SetRawSocketOption(Tcp, UserTimeout, BitConverter.GetBytes(Milliseconds));
    }
}
