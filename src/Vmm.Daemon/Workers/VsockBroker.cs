using System.Diagnostics;
using System.Globalization;
using Vmm.Contracts.Control;
using Vmm.Interop;

namespace Vmm.Daemon.Workers;

/// <summary>
/// Connects a guest to the host's sockets of its vsock, and to no others: a worker asks for a number, never for a path. vmmd connects as
/// root, so a symbolic link where the socket should be, which could lead anywhere, is not followed.
/// </summary>
internal sealed class VsockBroker(string path)
{
    /// <summary>
    /// Connections a second, in the long run: what a program behind a socket has to bear from a worker that was taken over.
    /// </summary>
    internal const int Rate = 100;

    /// <summary>Connections at once after a pause.</summary>
    internal const int Burst = 32;

    private static readonly long s_interval = Stopwatch.Frequency / Rate;

    // When the connection before would have come in at exactly the rate (the generic cell rate algorithm, ITU-T I.371).
    private long _due;

    /// <summary>
    /// The stream, or null: nobody listens there. What is above the rate waits, not much: the caller bounds how many do, and a worker waits
    /// for one wish at a time unless somebody took it over.
    /// </summary>
    internal async Task<UnixStream?> ConnectAsync(VsockDial wish)
    {
        if (Reserve() is { Ticks: > 0 } wait)
        {
            await Task.Delay(wait).ConfigureAwait(false);
        }

        return UnixStream.ConnectNoFollow(string.Create(CultureInfo.InvariantCulture, $"{path}_{wish.Port}"), out _);
    }

    /// <summary>Takes the next place, and says how long it is until it comes.</summary>
    private TimeSpan Reserve()
    {
        while (true)
        {
            long now = Stopwatch.GetTimestamp(), before = Volatile.Read(ref _due);
            long due = Math.Max(now, before) + s_interval;
            if (Interlocked.CompareExchange(ref _due, due, before) == before)
            {
                long wait = due - now - (Burst * s_interval);
                return wait > 0 ? TimeSpan.FromSeconds((double)wait / Stopwatch.Frequency) : TimeSpan.Zero;
            }
        }
    }
}
