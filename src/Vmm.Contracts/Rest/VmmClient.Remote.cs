using System.Net.Http.Headers;
using System.Net.Security;
using System.Security.Cryptography.X509Certificates;

namespace Vmm.Contracts.Rest;

/// <summary>How to reach a daemon on another machine.</summary>
/// <param name="Address"><c>https://HOST:PORT</c>.</param>
/// <param name="ServerAuthority">Who signed the daemon's certificate; null trusts whom the machine trusts.</param>
/// <param name="Certificate">The client's own certificate with its key; null when it has a token.</param>
/// <param name="Token">A token; null when it has a certificate.</param>
public sealed record RemoteDaemon(Uri Address, X509Certificate2? ServerAuthority = null, X509Certificate2? Certificate = null, string? Token = null);

/// <content>Other machines, over TLS.</content>
public sealed partial class VmmClient
{
    /// <summary>Talks to a daemon over TLS.</summary>
    /// <exception cref="ArgumentException">The address is not <c>https</c>: a token must not travel in the clear.</exception>
    public VmmClient(RemoteDaemon daemon)
    {
        if (!string.Equals(daemon.Address.Scheme, Uri.UriSchemeHttps, StringComparison.Ordinal))
        {
            throw new ArgumentException($"{daemon.Address}: expected https://HOST:PORT", nameof(daemon));
        }

        _where = daemon.Address.ToString();
        _token = daemon.Token;
        _consoles = new UriBuilder(daemon.Address) { Scheme = Uri.UriSchemeWss }.Uri;
        _handler = new SocketsHttpHandler { UseProxy = false, ConnectTimeout = TimeSpan.FromSeconds(20), SslOptions = Tls(daemon) };
        _http = new HttpClient(_handler) { BaseAddress = new Uri(daemon.Address, "/api/v1/"), Timeout = TimeSpan.FromMinutes(11) };
        if (_token is not null)
        {
            _http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", _token);
        }
    }

    private static SslClientAuthenticationOptions Tls(RemoteDaemon daemon)
    {
        SslClientAuthenticationOptions options = new();
        if (daemon.Certificate is { } own)
        {
            options.ClientCertificates = [own];
            options.LocalCertificateSelectionCallback = (_, _, _, _, _) => own;
        }

        if (daemon.ServerAuthority is { } authority)
        {
            options.CertificateChainPolicy = new X509ChainPolicy { TrustMode = X509ChainTrustMode.CustomRootTrust, RevocationMode = X509RevocationMode.NoCheck };
            options.CertificateChainPolicy.CustomTrustStore.Add(authority);
        }

        return options;
    }
}
