using System.Globalization;
using Vmm.Contracts.Control;
using Vmm.Devices.Virtio;
using Vmm.Interop;

namespace Vmm.Daemon.Workers;

/// <summary>
/// Connects a guest to the host's sockets of its vsock, and to no others: a worker asks for a number, never for a path. vmmd connects as root, so a symbolic link
/// where the socket should be, which could lead anywhere, is not followed.
/// </summary>
internal sealed class VsockBroker(string path)
{
    /// <summary>Connections a second, in the long run: what a program behind a socket has to bear from a worker that was taken over.</summary>
    internal const int Rate = 100;

    /// <summary>Connections at once after a pause.</summary>
    internal const int Burst = 32;

    private readonly RateLimiter _limiter = RateLimiter.Create(new RateLimit(0, Rate, 0, Burst), RateLimiter.Now)!;

    /// <summary>
    /// The stream, or null: nobody listens there. What is above the rate waits, not much: the caller bounds how many do, and a worker waits for one
    /// wish at a time unless somebody took it over.
    /// </summary>
    internal async Task<UnixStream?> ConnectAsync(VsockDial wish)
    {
        while (!_limiter.TryTake(0, RateLimiter.Now, out int wait))
        {
            await Task.Delay(wait).ConfigureAwait(false);
        }

        return UnixStream.ConnectNoFollow(string.Create(CultureInfo.InvariantCulture, $"{path}_{wish.Port}"), out _);
    }
}
