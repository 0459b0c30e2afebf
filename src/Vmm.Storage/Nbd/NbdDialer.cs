using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Vmm.Interop;

namespace Vmm.Storage.Nbd;

/// <summary>Connects to one NBD server with this process's own rights.</summary>
public sealed class NbdDialer : INbdConnector
{
    /// <summary>The port of NBD servers, as it is registered.</summary>
    public const int UsualPort = 10809;

    private readonly string _host;
    private readonly string? _path;
    private readonly int _port;
    private readonly bool _followsLinks;

    private NbdDialer(string host, int port, string? path, bool followsLinks) =>
        (_host, _port, _path, _followsLinks) = (host, port, path, followsLinks);

    /// <summary>A server that listens at a port of a host.</summary>
    public static NbdDialer Tcp(string host, int port) => new(host, port, null, followsLinks: false);

    /// <summary>A server that listens at a unix socket.</summary>
    /// <param name="path">Its path.</param>
    /// <param name="followsLinks">The path may be a symbolic link.</param>
    public static NbdDialer Unix(string path, bool followsLinks = true) => new("", 0, path, followsLinks);

    /// <inheritdoc/>
    public async Task<FileDescriptorHandle> ConnectAsync(CancellationToken cancel)
    {
        if (_path is { } path)
        {
            UnixStream? stream = _followsLinks ? UnixStream.Connect(path, out int why) : UnixStream.ConnectNoFollow(path, out why);
            return stream ?? throw new IOException($"connect to {path}: {Text(why)}");
        }

        IPAddress[] addresses;
        try
        {
            addresses = await Dns.GetHostAddressesAsync(_host, cancel).ConfigureAwait(false);
        }
        catch (SocketException cause)
        {
            throw new IOException($"host {_host}: {cause.Message}", cause);
        }

        int errno = Errno.ENOENT;
        foreach (IPAddress address in addresses)
        {
            if (TcpConnect.Try(address, _port, out errno, cancel) is { } socket)
            {
                return socket;
            }
        }

        throw new IOException($"connect to {_host} port {_port}: {Text(errno)}");
    }

    private static string Text(int errno) => Marshal.GetPInvokeErrorMessage(errno);
}
