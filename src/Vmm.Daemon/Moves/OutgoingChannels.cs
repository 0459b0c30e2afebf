using Vmm.Interop;

namespace Vmm.Daemon.Moves;

/// <summary>Channels of a worker to another host. Disposing cuts them.</summary>
/// <param name="count">How many.</param>
internal sealed class OutgoingChannels(int count) : IDisposable
{
    private readonly MoveChannels _pairs = new(count);
    private readonly CancellationTokenSource _over = new();

    /// <summary>The worker's ends.</summary>
    internal IReadOnlyList<FileDescriptorHandle> Workers => _pairs.Sources;

    /// <summary>Connects all of them.</summary>
    /// <exception cref="PeerException">The other host refuses one, or does not answer.</exception>
    internal async Task ConnectAsync(IMigrationPeer peer, string id, CancellationToken cancellation)
    {
        for (int i = 0; i < count; i++)
        {
            Stream remote = await peer.ChannelAsync(id, i, cancellation).ConfigureAwait(false);
            _ = ChannelRelay.RunAsync(_pairs.Targets[i], remote, _over.Token);
        }
    }

    /// <summary>The worker has its ends.</summary>
    internal void LetGo() => _pairs.Dispose(); // those that are relayed are the relays'

    public void Dispose()
    {
        _over.Cancel();
        _pairs.Dispose();
        _over.Dispose();
    }
}
