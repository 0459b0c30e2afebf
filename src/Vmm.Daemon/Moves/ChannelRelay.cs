using System.Net.Sockets;
using Vmm.Interop;

namespace Vmm.Daemon.Moves;

/// <summary>
/// Carries a channel of a worker over a connection to another host, and does not look into it. Each direction has one buffer: a side that
/// reads slowly slows the other down.
/// </summary>
internal static class ChannelRelay
{
    private const int BufferBytes = 256 << 10;

    // When one side ended, what is on its way from the other still gets there: a receiver's last words, say.
    private static readonly TimeSpan s_lastWords = TimeSpan.FromSeconds(2);

    /// <summary>Runs until either side ends; both are closed then.</summary>
    /// <param name="channel">Our end of the worker's channel; owned.</param>
    /// <param name="remote">The connection; owned.</param>
    /// <param name="cancellation">Ends it.</param>
    internal static async Task RunAsync(FileDescriptorHandle channel, Stream remote, CancellationToken cancellation)
    {
        using NetworkStream local = new(new Socket(new SafeSocketHandle(channel.Detach(), ownsHandle: true)), ownsSocket: true);
        await using (remote.ConfigureAwait(false))
        {
            using CancellationTokenSource over = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            Task[] both = [CopyAsync(local, remote, over.Token), CopyAsync(remote, local, over.Token)];
            await Task.WhenAny(both).ConfigureAwait(false);
            over.CancelAfter(s_lastWords);
            await Task.WhenAll(both).ConfigureAwait(false);
        }
    }

    private static async Task CopyAsync(Stream from, Stream to, CancellationToken cancellation)
    {
        byte[] buffer = GC.AllocateUninitializedArray<byte>(BufferBytes);
        try
        {
            int count;
            while ((count = await from.ReadAsync(buffer, cancellation).ConfigureAwait(false)) > 0)
            {
                await to.WriteAsync(buffer.AsMemory(0, count), cancellation).ConfigureAwait(false);
                await to.FlushAsync(cancellation).ConfigureAwait(false);
            }
        }
        catch (Exception cause) when (cause is IOException or SocketException or OperationCanceledException or ObjectDisposedException
            or InvalidOperationException)
        {
            // That is how a channel ends: the workers say what it means.
        }

        if (to is NetworkStream { Socket: var socket })
        {
            try
            {
                socket.Shutdown(SocketShutdown.Send); // the worker sees the end, and what it says still goes out
            }
            catch (Exception cause) when (cause is SocketException or ObjectDisposedException)
            {
                // It is gone.
            }
        }
    }
}
