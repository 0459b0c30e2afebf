using System.Net.Sockets;
using Microsoft.Extensions.Hosting;
using Vmm.Interop;

namespace Vmm.Daemon.Hosting;

/// <summary>
/// The REST socket's file: one that nobody answers goes before anything starts, and the new one is the owner's and group's from its first
/// moment.
/// </summary>
internal sealed class ListenSocket(DaemonOptions options) : IHostedService
{
    /// <summary>Removes the file that a daemon which was killed left behind.</summary>
    /// <exception cref="IOException">A daemon with other folders answers there, or it is no socket, or another user's.</exception>
    public Task StartAsync(CancellationToken cancellationToken)
    {
        if (!ServiceManager.PassesSocket)
        {
            try
            {
                SocketFile.RemoveDead(options.SocketPath);
            }
            catch (KernelException e) when (e.Errno == Errno.EADDRINUSE)
            {
                throw new IOException($"{options.SocketPath}: another vmmd answers there", e);
            }
            catch (KernelException e)
            {
                throw new IOException(e.Message, e);
            }
        }

        return Task.CompletedTask;
    }

    /// <inheritdoc/>
    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <summary>Binds it: nobody can connect before it listens, and then its mode is set.</summary>
    /// <exception cref="IOException">It cannot be bound.</exception>
    internal static Socket Bind(UnixDomainSocketEndPoint at)
    {
        Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            socket.Bind(at);
            File.SetUnixFileMode(
                at.ToString(), UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.GroupWrite);
            return socket;
        }
        catch (SocketException e)
        {
            socket.Dispose();
            throw new IOException($"{at}: {e.Message}", e);
        }
    }
}
