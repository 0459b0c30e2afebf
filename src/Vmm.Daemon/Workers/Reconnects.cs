using Vmm.Interop;

namespace Vmm.Daemon.Workers;

/// <summary>
/// When and how a lost connection to a worker is made again. A worker that closes connections again and again (it may be taken over) is
/// waited for longer each time. Not thread-safe.
/// </summary>
internal sealed class Reconnects
{
    private static readonly TimeSpan s_longest = TimeSpan.FromSeconds(30);
    private const long ForgottenAfter = 5 * 60 * 1000;

    private int _inARow;
    private long _last = long.MinValue;

    /// <summary>
    /// How long after the loss the first try is made. A process that dies closes its connection a moment before its end can be seen.
    /// </summary>
    internal TimeSpan Pause => TimeSpan.FromMilliseconds(Math.Min(250 << Math.Min(_inARow, 10), s_longest.TotalMilliseconds));

    /// <summary>A connection to that process; null when nobody takes it now.</summary>
    internal PacketSocket? TryConnect(string path, int processId)
    {
        PacketSocket? socket = null;
        try
        {
            socket = PacketSocket.Connect(path);
            if (socket.Peer.ProcessId == processId)
            {
                long now = Environment.TickCount64;
                _inARow = _last != long.MinValue && now - _last < ForgottenAfter ? _inARow + 1 : 0;
                _last = now;
                return socket;
            }
        }
        catch (KernelException)
        {
            // The name is gone, or nobody listens: the process is watched in any case.
        }

        socket?.Dispose();
        return null;
    }
}
