using Vmm.Cli.Remote;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Nbd;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Disks;

/// <summary>What an NBD server says of a disk, asked from this machine.</summary>
internal static class NbdView
{
    /// <exception cref="BlockException">The URI is none, or the disk cannot be had.</exception>
    internal static int Info(DaemonSession session, string uri)
    {
        if (!NbdUri.TryRead(uri, out NbdSpec nbd, out string problem))
        {
            throw new BlockException(BlockErrorKind.NotADisk, $"{uri}: {problem}");
        }

        NbdOptions options = new()
        {
            Name = nbd.Uri,
            Export = nbd.Export,
            ReadOnly = true,
            Tls = nbd.Tls is { } tls ? new NbdTls(tls.Certificates, tls.Psk, tls.User, tls.Verify) : null,
        };
        using NbdBackend disk = NbdBackend.Open(
            options, nbd.Socket is { } socket ? NbdDialer.Unix(socket) : NbdDialer.Tcp(nbd.Host!, nbd.Port));
        BlockGeometry geometry = disk.Geometry;
        return session.IsJson
            ? session.Json(
                new ServerView(nbd.Uri, geometry.CapacityBytes, geometry.LogicalBlockSize, geometry.PhysicalBlockSize),
                DiskFileJson.Default.ServerView)
            : session.Properties([
                ("server", nbd.Uri), ("size", $"{Size(geometry.CapacityBytes)} ({geometry.CapacityBytes} bytes)"),
                ("block size", Size((ulong)geometry.LogicalBlockSize)), ("best blocks", Size((ulong)geometry.PhysicalBlockSize))]);
    }
}
