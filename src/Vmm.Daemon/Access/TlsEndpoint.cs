using System.Net;
using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Https;

namespace Vmm.Daemon.Access;

/// <summary>
/// The endpoint for other machines: TLS 1.2 or later, client certificates of our own authority only. Who has none may still show a token.
/// Nothing is fetched from the network while a certificate is looked at: addresses in it (authority information access, revocation lists,
/// OCSP) are a stranger's.
/// </summary>
internal static class TlsEndpoint
{
    private const string ClientAuthentication = "1.3.6.1.5.5.7.3.2"; // RFC 5280, section 4.2.1.12

    /// <exception cref="IOException">The certificate, its key or the authority cannot be read.</exception>
    internal static void Add(KestrelServerOptions kestrel, IPEndPoint at, DaemonOptions options, ConnectionGuard guard)
    {
        SslStreamCertificateContext certificate;
        X509Certificate2Collection authorities = [];
        try
        {
            X509Certificate2Collection chain = [];
            chain.ImportFromPemFile(options.CertificateFile!);
            X509Certificate2 own = X509Certificate2.CreateFromPemFile(options.CertificateFile!, options.KeyFile);
            certificate = SslStreamCertificateContext.Create(own, chain, offline: true);
            if (options.ClientAuthorityFile is { } file)
            {
                authorities.ImportFromPemFile(file);
            }
        }
        catch (Exception e) when (e is CryptographicException or IOException or UnauthorizedAccessException)
        {
            string files = $"certificate {options.CertificateFile}, key {options.KeyFile} or clientCa {options.ClientAuthorityFile}";
            throw new IOException($"listen {at}: {files} cannot be used: {e.Message}", e);
        }

        kestrel.Listen(at, listen =>
        {
            guard.GuardRemote(listen);
            listen.UseHttps(new TlsHandshakeCallbackOptions
            {
                HandshakeTimeout = ConnectionGuard.HandshakeTime,
                OnConnection = _ => ValueTask.FromResult(Authentication(certificate, authorities)),
            });
            ConnectionGuard.HandshakeDone(listen);
        });
    }

    private static SslServerAuthenticationOptions Authentication(
        SslStreamCertificateContext certificate, X509Certificate2Collection trusted) => new()
        {
            ServerCertificateContext = certificate,
            EnabledSslProtocols = SslProtocols.Tls12 | SslProtocols.Tls13,
            ApplicationProtocols = [SslApplicationProtocol.Http11],
            ClientCertificateRequired = true,
            CertificateChainPolicy = Policy(trusted), // one of its own for each: the handshake puts the client's certificates into it
            RemoteCertificateValidationCallback =
                (_, client, _, errors) => client is null || (trusted.Count > 0 && errors == SslPolicyErrors.None),
        };

    /// <summary>Signed by one of our authorities and valid now; the host's own list of authorities does not count.</summary>
    private static X509ChainPolicy Policy(X509Certificate2Collection authorities)
    {
        X509ChainPolicy policy = new()
        {
            TrustMode = X509ChainTrustMode.CustomRootTrust,
            RevocationMode = X509RevocationMode.NoCheck, // a certificate is revoked by taking it out of the principals
            DisableCertificateDownloads = true,
        };
        policy.CustomTrustStore.AddRange(authorities);
        policy.ApplicationPolicy.Add(new Oid(ClientAuthentication));
        return policy;
    }
}
