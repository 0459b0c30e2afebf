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
        if (options is null)
        {
            throw new ApiException(409, "peers-unset", "this vmmd knows no other",
                "vmmd.yaml says nothing of other hosts: set peers: {certificate: FILE, key: FILE, ca: FILE} on both");
        }

        if (!Uri.TryCreate(url, UriKind.Absolute, out Uri? at) || !string.Equals(at.Scheme, Uri.UriSchemeHttps, StringComparison.Ordinal)
            || at.UserInfo.Length > 0
            || at.PathAndQuery is not "/" || at.Fragment.Length > 0)
        {
            throw new ApiException(422, "migration-refused", "the VM is not moved", $"{url}: expected https://HOST:PORT of another vmmd");
        }

        try
        {
            return connect?.Invoke(at, options) ?? new MigrationPeer(at, options);
        }
        catch (PeerException cause)
        {
            throw new ApiException(409, cause.Code, "this vmmd knows no other", cause.Message, inner: cause);
        }
    }
}
