using System.Net;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Https;

namespace Vmm.Daemon.Access;

/// <summary>The endpoint for other machines: TLS 1.2 or later, client certificates of our own authority only. Who has none may still show a token.</summary>
internal static class TlsEndpoint
{
    /// <exception cref="IOException">The certificate, its key or the authority cannot be read.</exception>
    internal static void Add(KestrelServerOptions kestrel, IPEndPoint at, DaemonOptions options)
    {
        X509Certificate2 certificate;
        X509Certificate2Collection authorities = [];
        try
        {
            certificate = X509Certificate2.CreateFromPemFile(options.CertificateFile!, options.KeyFile);
            if (options.ClientAuthorityFile is { } file)
            {
                authorities.ImportFromPemFile(file);
            }
        }
        catch (Exception e) when (e is CryptographicException or IOException or UnauthorizedAccessException)
        {
            throw new IOException($"listen {at}: certificate {options.CertificateFile}, key {options.KeyFile} or clientCa {options.ClientAuthorityFile} cannot be used: {e.Message}", e);
        }

        kestrel.Listen(at, listen =>
        {
            listen.Protocols = HttpProtocols.Http1;
            listen.UseHttps(certificate, https =>
            {
                https.SslProtocols = SslProtocols.Tls12 | SslProtocols.Tls13;
                https.ClientCertificateMode = ClientCertificateMode.AllowCertificate;
                https.ClientCertificateValidation = (client, _, _) => Signed(client, authorities);
            });
        });
    }

    /// <summary>Signed by one of our authorities and valid now; the host's own list of authorities does not count.</summary>
    private static bool Signed(X509Certificate2 client, X509Certificate2Collection authorities)
    {
        using X509Chain chain = new();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.AddRange(authorities);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck; // a certificate is revoked by taking it out of the principals
        chain.ChainPolicy.ApplicationPolicy.Add(new Oid("1.3.6.1.5.5.7.3.2"));
        return authorities.Count > 0 && chain.Build(client);
    }
}
