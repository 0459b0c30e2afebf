using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Remote;

/// <summary>Which daemon is asked, and as whom.</summary>
/// <param name="Host"><c>unix:///PATH</c> or <c>https://NAME:PORT</c>.</param>
/// <param name="TokenFile">File with the bearer token; null for none.</param>
/// <param name="Certificate">Client certificate, PEM; null for none.</param>
/// <param name="Key">Its private key; null when it is in the certificate's file.</param>
/// <param name="Authority">Certificate of the authority the daemon's must come from; null for the system's.</param>
internal sealed record DaemonAddress(
    string Host, string? TokenFile = null, string? Certificate = null, string? Key = null, string? Authority = null)
{
    private const string Unix = "unix:";

    /// <summary>
    /// The socket's path, null for a remote daemon. <c>unix:PATH</c>, <c>unix://PATH</c> and a plain path are all understood.
    /// </summary>
    internal string? Socket
    {
        get
        {
            string path = Host.StartsWith(Unix, StringComparison.Ordinal) ? Host[Unix.Length..] : Host;
            return path.StartsWith("//", StringComparison.Ordinal) && path.Length < Host.Length ? path[2..]
                : path.Contains("://", StringComparison.Ordinal) ? null
                : path;
        }
    }

    /// <summary>A client for it; connects with the first request.</summary>
    /// <exception cref="UsageException">The address is not one, or a file it needs cannot be used.</exception>
    internal VmmClient Open()
    {
        if (Socket is { } socket && socket.StartsWith('/'))
        {
            return (Certificate ?? Key ?? Authority) is null
                ? new VmmClient(socket)
                : throw new UsageException($"--certificate, --key and --ca go with https, not with {Host}");
        }

        if (!Uri.TryCreate(Host, UriKind.Absolute, out Uri? url) || !string.Equals(url.Scheme, Uri.UriSchemeHttps, StringComparison.Ordinal)
            || url.PathAndQuery is not "/")
        {
            throw new UsageException($"--host {Host}: expected unix:///PATH or https://NAME:PORT");
        }

        if (Key is not null && Certificate is null)
        {
            throw new UsageException($"--key {Key}: goes with --certificate");
        }

        return new VmmClient(
            url,
            TokenFile is null ? null : Read("--token-file", TokenFile, path => File.ReadAllText(path).Trim()),
            Certificate is null ? null : Read("--certificate", Certificate, path => X509Certificate2.CreateFromPemFile(path, Key)),
            Authority is null ? null : Read("--ca", Authority, Authorities));
    }

    private static X509Certificate2Collection Authorities(string path)
    {
        X509Certificate2Collection all = [];
        all.ImportFromPemFile(path);
        return all.Count > 0 ? all : throw new CryptographicException("holds no certificate (PEM)");
    }

    private static T Read<T>(string option, string path, Func<string, T> read)
    {
        try
        {
            return read(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or CryptographicException)
        {
            throw new UsageException($"{option} {path}: {(File.Exists(path) ? e.Message : "does not exist")}");
        }
    }
}
