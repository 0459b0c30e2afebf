using System.Diagnostics;

namespace Vmm.Daemon.Moves;

/// <summary>Looks now and then whether the other host still takes the VM.</summary>
/// <param name="peer">The other host.</param>
/// <param name="id">The move.</param>
internal sealed class PeerWatch(IMigrationPeer peer, string id)
{
    private static readonly TimeSpan s_interval = TimeSpan.FromMilliseconds(500);

    private long _last = Stopwatch.GetTimestamp();

    /// <summary>Looks, when it is time.</summary>
    /// <exception cref="PeerException">It does not, or does not answer.</exception>
    internal async Task LookAsync(CancellationToken cancellation)
    {
        if (Stopwatch.GetElapsedTime(_last) < s_interval)
        {
            return;
        }

        VmMigrations.RequireReceiving(await peer.StatusAsync(id, cancellation).ConfigureAwait(false));
        _last = Stopwatch.GetTimestamp();
    }
}
