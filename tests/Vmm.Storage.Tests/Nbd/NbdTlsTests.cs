using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Vmm.Interop;
using Vmm.Storage.Nbd;

namespace Vmm.Storage.Tests.Nbd;

/// <summary>TLS with a real server: pre-shared keys and certificates, right and wrong ones.</summary>
public sealed class NbdTlsTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-nbd-tls-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [NbdFact("nbdkit")]
    public void A_key_lets_in_and_another_one_or_none_does_not()
    {
        string right = Write("right", $"me:{new string('a', 64)}\n"), wrong = Write("wrong", $"me:{new string('b', 64)}\n");
        using NbdServer server = NbdServer.Kit("--tls=require", $"--tls-psk={right}", "memory", "1M");
        Use(server, new NbdTls(null, right, "me"));
        Assert.Throws<BlockException>(() => Use(server, new NbdTls(null, wrong, "me")));
        Assert.Throws<BlockException>(() => Use(server, tls: null));
    }

    [NbdFact("nbdkit")]
    public void A_server_without_TLS_is_not_used_when_TLS_is_asked_for()
    {
        string key = Write("right", $"me:{new string('a', 64)}\n");
        using NbdServer server = NbdServer.Kit("memory", "1M");
        Assert.Throws<BlockException>(() => Use(server, new NbdTls(null, key, "me")));
    }

    [NbdFact("nbdkit")]
    public void Certificates_are_refused_unless_it_is_said_that_nobody_checks_them()
    {
        string own = Authority("own"), other = Authority("other");
        using NbdServer server = NbdServer.Kit("--tls=require", $"--tls-certificates={own}", "memory", "1M");
        BlockException refused = Assert.Throws<BlockException>(() => Use(server, new NbdTls(own, null, null)));
        Assert.Contains("verify: false", refused.Message, StringComparison.Ordinal);
        Use(server, new NbdTls(own, null, null, VerifyPeer: false));
        Use(server, new NbdTls(other, null, null, VerifyPeer: false)); // which is why: anybody can be the server
    }

    private static void Use(NbdServer server, NbdTls? tls)
    {
        using NbdBackend disk = server.Open(new NbdOptions { Name = "tls", Tls = tls });
        using DiskDriver driver = new(disk);
        byte[] data = new byte[300_000], back = new byte[300_000];
        new Random(1).NextBytes(data);
        data = data[..(292 * 1024)];
        back = back[..(292 * 1024)];
        Assert.Equal(DiskStatus.Ok, driver.Write(4096, data, 0, 1000, 100_000));
        Assert.Equal(DiskStatus.Ok, driver.Read(4096, back));
        Assert.Equal(data, back);
        Assert.Equal(DiskStatus.Ok, driver.Flush());
    }

    private string Write(string name, string text)
    {
        string path = Path.Combine(_folder, name);
        File.WriteAllText(path, text);
        return path;
    }

    // A folder with an authority and a server's certificate of it.
    private string Authority(string name)
    {
        string folder = Directory.CreateDirectory(Path.Combine(_folder, name)).FullName;
        DateTimeOffset from = DateTimeOffset.UtcNow.AddDays(-1), to = DateTimeOffset.UtcNow.AddDays(1);
        using RSA caKey = RSA.Create(2048), key = RSA.Create(2048);
        CertificateRequest ca = new($"CN={name}", caKey, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
        ca.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        ca.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign, true));
        using X509Certificate2 authority = ca.CreateSelfSigned(from, to);
        CertificateRequest request = new("CN=localhost", key, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
        using X509Certificate2 certificate = request.Create(authority, from, to, [1, 2, 3]);
        File.WriteAllText(Path.Combine(folder, "ca-cert.pem"), authority.ExportCertificatePem());
        File.WriteAllText(Path.Combine(folder, "server-cert.pem"), certificate.ExportCertificatePem());
        File.WriteAllText(Path.Combine(folder, "server-key.pem"), key.ExportPkcs8PrivateKeyPem());
        return folder;
    }
}
