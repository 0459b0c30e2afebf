using System.Text;

namespace Vmm.Spec;

/// <summary>The rules of disks of NBD servers.</summary>
internal static class NbdValidation
{
    /// <summary>Seconds that a disk may wait for its server.</summary>
    internal const int MostReconnect = 24 * 3600;

    /// <summary>Seconds that a server may have for an answer.</summary>
    internal const int MostTimeout = 3600;

    /// <summary>Bytes of an export's name (the protocol's limit of a string).</summary>
    internal const int MostExport = 4096;

    private const int MostHost = 253, MostSocket = 107; // of DNS, and of struct sockaddr_un

    internal static void Check(DiskSpec disk, string path, SpecComplaints check)
    {
        check.Require(Enum.IsDefined(disk.Source.Kind), path + ".kind", "is of no known kind, expected raw, nbd or rbd");
        if (disk.Nbd is not { } nbd)
        {
            check.Require(disk.Source.Kind != SourceKind.Nbd, path + ".nbd", "is missing");
            return;
        }

        string at = path + ".nbd";
        check.Require(string.Equals(disk.Path, nbd.Uri, StringComparison.Ordinal), path + ".path", "is of files, and nbd is given");
        check.Require(disk.Format == DiskFormat.Raw && disk.Backing is null, path + ".format",
            "an image on an NBD server is not read here: let the server read it (qemu-nbd -f qcow2)");
        check.Require(disk.Cache == DiskCache.Direct, path + ".cache", "is of files, and nbd is given");
        check.Require(nbd.Host is null != nbd.Socket is null, at, "names its server by one of host and socket");
        check.Require(nbd.Host is null || IsHost(nbd.Host), at + ".host", $"expected a host name or address, up to {MostHost} characters");
        check.Require(nbd.Socket is null || (nbd.Socket.Length > 0 && Encoding.UTF8.GetByteCount(nbd.Socket) <= MostSocket
            && !nbd.Socket.Any(char.IsControl)), at + ".socket", $"expected a path of at most {MostSocket} bytes");
        check.Require(Encoding.UTF8.GetByteCount(nbd.Export) <= MostExport && !nbd.Export.Contains('\0', StringComparison.Ordinal),
            at + ".export", $"expected a text of at most {MostExport} bytes");
        check.Require(Enum.IsDefined(nbd.Unflushed), at + ".unflushed", "expected fail or trust");
        if (nbd.Tls is { } tls)
        {
            check.Require(tls.Certificates is null != tls.Psk is null, at + ".tls", "needs one of certificates and psk");
            check.Require(tls.User is null || tls.Psk is not null, at + ".tls.user", "is of a pre-shared key (psk)");
        }
    }

    private static bool IsHost(string host) => host.Length is > 0 and <= MostHost
        && host.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '-' or ':' or '_' or '%');
}
