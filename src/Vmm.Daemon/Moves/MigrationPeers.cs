using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Moves;

/// <summary>Finds the vmmd of other hosts.</summary>
/// <param name="options">How we know each other; null: this one knows none.</param>
/// <param name="connect">Connects to one; null: over the network.</param>
internal sealed class MigrationPeers(PeerOptions? options, Func<Uri, PeerOptions, IMigrationPeer>? connect = null)
{
    /// <summary>Another vmmd; nothing is sent yet.</summary>
    /// <param name="url">Where it is.</param>
    /// <exception cref="ApiException">The address is none, or this vmmd has no certificate for others.</exception>
    internal IMigrationPeer Find(string url)
    {
        (Uri at, PeerOptions known) = PeerAddress.Require(options, url, "migration-refused", "the VM is not moved");
        try
        {
            return connect?.Invoke(at, known) ?? new MigrationPeer(at, known);
        }
        catch (PeerException cause)
        {
            throw new ApiException(409, cause.Code, "this vmmd knows no other", cause.Message, inner: cause);
        }
    }
}
