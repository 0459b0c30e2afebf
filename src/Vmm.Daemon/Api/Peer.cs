using System.Net.Sockets;
using System.Runtime.InteropServices;
using Vmm.Interop;

namespace Vmm.Daemon.Api;

/// <summary>Who is at the other end of a unix socket: SO_PEERCRED, unix(7).</summary>
/// <param name="ProcessId">Process that connected.</param>
/// <param name="UserId">Its user.</param>
/// <param name="GroupId">Its primary group.</param>
public sealed record Peer(int ProcessId, int UserId, int GroupId)
{
    private const int SolSocket = 1, SoPeerGroups = 59;
    private const int MostGroups = 1024;

    private uint[] _groups = [];

    /// <summary>True when the process was in this group, primary or not, when it connected.</summary>
    public bool IsMember(uint group) => (uint)GroupId == group || _groups.Contains(group);

    /// <summary>Asks the kernel; null for a socket that has no such peer.</summary>
    public static Peer? Of(Socket socket)
    {
        try
        {
            PeerCredentials peer = PeerCredentials.Of(socket.SafeHandle);
            byte[] groups = new byte[MostGroups * sizeof(uint)];
            int length = socket.GetRawSocketOption(SolSocket, SoPeerGroups, groups);
            return new Peer(peer.ProcessId, (int)peer.UserId, (int)peer.GroupId)
            {
                _groups = MemoryMarshal.Cast<byte, uint>(groups.AsSpan(0, length)).ToArray(),
            };
        }
        catch (Exception e) when (e is SocketException or KernelException or ObjectDisposedException)
        {
            return null;
        }
    }
}
