using System.Globalization;
using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Https;

namespace Vmm.Daemon;

/// <summary>Where the daemon listens: a unix socket, its own or the service manager's, and perhaps a TLS endpoint.</summary>
internal static class Listeners
{
    private const int FirstPassed = 3; // SD_LISTEN_FDS_START, sd_listen_fds(3)
    private const string ClientUse = "1.3.6.1.5.5.7.3.2"; // id-kp-clientAuth, RFC 5280, section 4.2.1.12

    /// <summary>Adds the endpoints.</summary>
    /// <exception cref="IOException">A certificate or a passed socket is missing.</exception>
    internal static void Add(IWebHostBuilder web, DaemonOptions options)
    {
        int? passed = options.ListenFds ? Passed() : null;
        if (options.Listen is not null)
        {
            web.UseKestrelHttpsConfiguration();
        }

        web.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = DaemonOptions.MaxBodyBytes;
            kestrel.Limits.RequestHeadersTimeout = TimeSpan.FromSeconds(10);
            if (passed is { } descriptor)
            {
                kestrel.ListenHandle((ulong)descriptor, socket => socket.Protocols = HttpProtocols.Http1);
            }
            else
            {
                kestrel.ListenUnixSocket(options.SocketPath, socket => socket.Protocols = HttpProtocols.Http1);
            }

            if (options.Listen is { } address)
            {
                HttpsConnectionAdapterOptions tls = Tls(options);
                kestrel.Limits.MaxConcurrentConnections = 1024;
                kestrel.Listen(DaemonOptions.EndPointOf(address)!, endpoint =>
                {
                    endpoint.Protocols = HttpProtocols.Http1;
                    endpoint.UseHttps(tls);
                });
            }
        });
    }

    private static HttpsConnectionAdapterOptions Tls(DaemonOptions options)
    {
        try
        {
            X509Certificate2 own = X509Certificate2.CreateFromPemFile(options.Certificate!, options.Key);
            X509Certificate2Collection chain = [];
            chain.ImportFromPemFile(options.Certificate!);
            X509Certificate2Collection authorities = [];
            if (options.ClientAuthority is { } file)
            {
                authorities.ImportFromPemFile(file);
            }

            return new HttpsConnectionAdapterOptions
            {
                ServerCertificate = own,
                ServerCertificateChain = chain,
                SslProtocols = SslProtocols.Tls12 | SslProtocols.Tls13,
                HandshakeTimeout = TimeSpan.FromSeconds(10),
                // A client without one may still have a token. One that shows a bad one is not spoken to.
                ClientCertificateMode = authorities.Count > 0 ? ClientCertificateMode.AllowCertificate : ClientCertificateMode.NoCertificate,
                ClientCertificateValidation = (certificate, sent, _) => IsOurs(certificate, sent, authorities),
            };
        }
        catch (Exception e) when (e is CryptographicException or UnauthorizedAccessException)
        {
            throw new IOException($"the TLS endpoint cannot be set up with certificate {options.Certificate}, key {options.Key}, client CA {options.ClientAuthority ?? "none"}: {e.Message}", e);
        }
    }

    /// <summary>The machine's own authorities do not count here: only the configured ones make a client.</summary>
    internal static bool IsOurs(X509Certificate2 certificate, X509Chain? sent, X509Certificate2Collection authorities)
    {
        using X509Chain chain = new();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.AddRange(authorities);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        chain.ChainPolicy.DisableCertificateDownloads = true;
        chain.ChainPolicy.ApplicationPolicy.Add(new Oid(ClientUse));
        if (sent is not null)
        {
            chain.ChainPolicy.ExtraStore.AddRange(sent.ChainPolicy.ExtraStore);
        }

        return chain.Build(certificate);
    }

    private static int Passed()
    {
        string? process = Environment.GetEnvironmentVariable("LISTEN_PID"), count = Environment.GetEnvironmentVariable("LISTEN_FDS");
        // Not for the workers: they would take the descriptor numbers for theirs.
        Environment.SetEnvironmentVariable("LISTEN_PID", null);
        Environment.SetEnvironmentVariable("LISTEN_FDS", null);
        Environment.SetEnvironmentVariable("LISTEN_FDNAMES", null);
        return string.Equals(process, Environment.ProcessId.ToString(CultureInfo.InvariantCulture), StringComparison.Ordinal) && count is "1"
            ? FirstPassed
            : throw new IOException($"--listen-fds: expected one socket from the service manager, LISTEN_PID is {process ?? "not set"} and LISTEN_FDS {count ?? "not set"}");
    }
}
