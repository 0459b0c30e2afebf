using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Vmm.Daemon.Access;

namespace Vmm.Daemon.Tests;

/// <summary>An authority of a test, which signs servers and clients.</summary>
internal sealed class Authority : IDisposable
{
    private const string ClientAuthentication = "1.3.6.1.5.5.7.3.2", ServerAuthentication = "1.3.6.1.5.5.7.3.1";

    private readonly X509Certificate2 _root;
    private int _serial;

    public Authority(string name)
    {
        using ECDsa key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        CertificateRequest request = new($"CN={name}", key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        _root = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(1));
    }

    public X509Certificate2Collection Trusted => [_root];

    /// <summary>A client's certificate, valid for an hour.</summary>
    public X509Certificate2 Client(string name) => Sign(name, ClientAuthentication);

    /// <summary>A client's certificate whose time is over since a minute.</summary>
    public X509Certificate2 Expired(string name) => Sign(name, ClientAuthentication, DateTimeOffset.UtcNow.AddMinutes(-1));

    /// <summary>
    /// A client's certificate that says where its issuer's certificate is to be fetched from, and where the list of revoked ones.
    /// </summary>
    public X509Certificate2 ClientThatNames(string name, Uri address) => Sign(name, ClientAuthentication, null,
        new X509AuthorityInformationAccessExtension([address.ToString()], [address.ToString()]),
        CertificateRevocationListBuilder.BuildCrlDistributionPointExtension([address.ToString()]));

    /// <summary>Options of a daemon with a certificate of this authority on a port of its own choice.</summary>
    public DaemonOptions Options(string folder, params (string Name, Role Role, X509Certificate2 Certificate)[] known)
    {
        X509Certificate2 server = Sign("localhost", ServerAuthentication);
        string certificate = Path.Combine(folder, "cert.pem"), key = Path.Combine(folder, "key.pem"),
            authority = Path.Combine(folder, "ca.pem");
        File.WriteAllText(certificate, server.ExportCertificatePem());
        File.WriteAllText(key, server.GetECDsaPrivateKey()!.ExportPkcs8PrivateKeyPem());
        File.WriteAllText(authority, _root.ExportCertificatePem());
        return new DaemonOptions
        {
            Listen = new IPEndPoint(IPAddress.Loopback, 0),
            CertificateFile = certificate,
            KeyFile = key,
            ClientAuthorityFile = authority,
            Certificates = [.. known.Select(
                k => new CertificatePrincipal(k.Name, k.Role, Convert.ToHexStringLower(SHA256.HashData(k.Certificate.RawData))))],
        };
    }

    public void Dispose() => _root.Dispose();

    private X509Certificate2 Sign(string name, string usage, DateTimeOffset? end = null, params X509Extension[] more)
    {
        using ECDsa key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        CertificateRequest request = new($"CN={name}", key, HashAlgorithmName.SHA256);
        SubjectAlternativeNameBuilder names = new();
        names.AddIpAddress(IPAddress.Loopback);
        request.CertificateExtensions.Add(names.Build());
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid(usage)], critical: false));
        foreach (X509Extension extension in more)
        {
            request.CertificateExtensions.Add(extension);
        }

        using X509Certificate2 signed = request.Create(
            _root, DateTimeOffset.UtcNow.AddHours(-1), end ?? DateTimeOffset.UtcNow.AddHours(1), [1, (byte)++_serial]);
        return signed.CopyWithPrivateKey(key);
    }
}
