using System.Net;
using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>Connects stream sockets over IP that never block, tcp(7): no delay of small packets, and dead peers are noticed.</summary>
public static class TcpConnect
{
    private const int LookMilliseconds = 50;

    /// <summary>Connects; the socket, or null. Waits until it is connected, cannot be, or <paramref name="cancel"/> says so.</summary>
    /// <param name="address">Where to.</param>
    /// <param name="port">The port.</param>
    /// <param name="errno">Why not; ETIMEDOUT when it was called off.</param>
    /// <param name="cancel">Calls it off.</param>
    public static FileDescriptorHandle? Try(IPAddress address, int port, out int errno, CancellationToken cancel)
    {
        uint scope = address.AddressFamily == System.Net.Sockets.AddressFamily.InterNetworkV6 ? (uint)address.ScopeId : 0;
        int fd = SocketCalls.BeginConnectIp(address.GetAddressBytes(), scope, (ushort)port);
        errno = Math.Max(-fd, 0);
        if (fd < 0)
        {
            return null;
        }

        FileDescriptorHandle socket = new(fd);
        PollEntry[] one = [new PollEntry(socket, read: false, write: true)];
        while (Poll.Wait(one, LookMilliseconds) == 0)
        {
            if (cancel.IsCancellationRequested)
            {
                errno = Errno.ETIMEDOUT;
                socket.Dispose();
                return null;
            }
        }

        errno = Math.Max(-SocketCalls.TakeError(socket), 0);
        if (errno == 0)
        {
            return socket;
        }

        socket.Dispose();
        return null;
    }
}
