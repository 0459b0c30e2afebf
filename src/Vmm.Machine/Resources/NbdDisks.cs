using Vmm.Interop;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Nbd;

namespace Vmm.Machine.Resources;

/// <summary>Disks of NBD servers from their spec.</summary>
public static class NbdDisks
{
    /// <summary>Who connects with this process's own rights.</summary>
    public static INbdConnector Dialer(NbdSpec nbd) =>
        nbd.Socket is { } socket ? NbdDialer.Unix(socket) : NbdDialer.Tcp(nbd.Host!, nbd.Port);

    /// <summary>Opens the disk.</summary>
    /// <param name="disk">The disk, which has a server, or a process that serves it.</param>
    /// <param name="connector">Who connects.</param>
    /// <param name="note">Takes remarks on the connection; null when nobody reads them.</param>
    /// <exception cref="BlockException">It cannot be had.</exception>
    internal static NbdBackend Open(DiskSpec disk, INbdConnector connector, Action<string>? note)
    {
        NbdOptions options = new()
        {
            Name = disk.Path,
            ReadOnly = disk.ReadOnly,
            Changed = report => note?.Invoke(Remark(disk, report)),
        };
        return NbdBackend.Open(disk.Nbd is { } nbd
            ? options with
            {
                Export = nbd.Export,
                Tls = nbd.Tls is { } tls ? new NbdTls(tls.Certificates, tls.Psk, tls.User, tls.Verify) : null,
                Reconnect = TimeSpan.FromSeconds(nbd.Reconnect),
                Timeout = TimeSpan.FromSeconds(nbd.Timeout),
                KeepsUnflushed = nbd.Unflushed == UnflushedPolicy.Trust,
            }
            : options with
            {
                Reconnect = TimeSpan.FromSeconds(disk.Rbd!.Reconnect),
                Timeout = TimeSpan.FromSeconds(disk.Rbd.Timeout),
                KeepsUnflushed = disk.Cache == DiskCache.Direct, // the cluster has what it answered; librbd's own cache has not
            }, connector);
    }

    /// <summary>Opens the disk over a socket that somebody else connected.</summary>
    /// <param name="disk">The disk, which has a server.</param>
    /// <param name="socket">The socket; owned from here on.</param>
    /// <param name="ask">Asks for another one of a disk, known by its URI; null: there is nobody to ask.</param>
    /// <param name="mayLoad">The process may still open libraries.</param>
    /// <param name="note">Takes remarks on the connection; null when nobody reads them.</param>
    /// <exception cref="BlockException">It cannot be had.</exception>
    internal static NbdBackend OpenPassed(DiskSpec disk, FileDescriptorHandle socket,
        Func<string, CancellationToken, Task<FileDescriptorHandle>>? ask, bool mayLoad, Action<string>? note)
    {
        try
        {
            return !mayLoad && !NbdLibrary.IsLoaded
                ? throw new BlockException(BlockErrorKind.NotADisk,
                    $"disk {disk.Path}: this VM was started without disks of servers, and its process loads no libraries any more: "
                        + "stop it, and start it with the disk") { Path = disk.Path }
                : Open(disk, new PassedSockets(socket, ask, disk.Path), note);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private static string Remark(DiskSpec disk, NbdReport report) => report switch
    {
        { IsConnected: true } when disk.Rbd is not null => $"disk {disk.Path}: the cluster answers again",
        { IsConnected: true } => $"disk {disk.Path}: the server is back",
        { IsGivenUp: true } =>
            $"disk {disk.Path}: the server did not come back within {Reconnect(disk)} s, requests fail: {report.Why}",
        _ => $"disk {disk.Path}: the connection is lost, requests wait up to {Reconnect(disk)} s: {report.Why}",
    };

    private static int Reconnect(DiskSpec disk) => disk.Nbd?.Reconnect ?? disk.Rbd!.Reconnect;
}

/// <summary>
/// The first socket was connected by somebody else and passed; he is asked for the next ones. For a process that connects to nothing.
/// </summary>
/// <param name="first">The first.</param>
/// <param name="ask">Asks for another one of this disk; null: there is nobody to ask.</param>
/// <param name="disk">The disk's URI.</param>
internal sealed class PassedSockets(
    FileDescriptorHandle first, Func<string, CancellationToken, Task<FileDescriptorHandle>>? ask, string disk) : INbdConnector
{
    private FileDescriptorHandle? _first = first;

    /// <inheritdoc/>
    public Task<FileDescriptorHandle> ConnectAsync(CancellationToken cancel) =>
        Interlocked.Exchange(ref _first, null) is { } passed ? Task.FromResult(passed)
            : ask?.Invoke(disk, cancel) ?? throw new IOException("nobody is there who connects again");
}
