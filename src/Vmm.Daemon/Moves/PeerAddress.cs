using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Moves;

/// <summary>What an address of another vmmd has to be.</summary>
internal static class PeerAddress
{
    /// <summary>The address, and how we know each other.</summary>
    /// <param name="options">From vmmd.yaml; null: this vmmd knows no other.</param>
    /// <param name="url">What somebody wrote.</param>
    /// <param name="code">Of the error when that is none.</param>
    /// <param name="title">Of the same.</param>
    /// <exception cref="ApiException">The address is none, or this vmmd has no certificate for others.</exception>
    internal static (Uri At, PeerOptions Options) Require(PeerOptions? options, string url, string code, string title)
    {
        if (options is null)
        {
            throw new ApiException(409, "peers-unset", "this vmmd knows no other",
                "vmmd.yaml says nothing of other hosts: set peers: {certificate: FILE, key: FILE, ca: FILE} on both");
        }

        return Uri.TryCreate(url, UriKind.Absolute, out Uri? at) && string.Equals(at.Scheme, Uri.UriSchemeHttps, StringComparison.Ordinal)
            && at.UserInfo.Length == 0 && at.PathAndQuery is "/" && at.Fragment.Length == 0
            ? (at, options)
            : throw new ApiException(422, code, title, $"{url}: expected https://HOST:PORT of another vmmd");
    }
}
