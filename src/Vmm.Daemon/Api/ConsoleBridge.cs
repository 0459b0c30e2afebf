using System.Net.WebSockets;

namespace Vmm.Daemon.Api;

/// <summary>Copies between a WebSocket and a console until either side ends.</summary>
internal static class ConsoleBridge
{
    private const int BufferBytes = 16 * 1024;

    internal static async Task RunAsync(WebSocket socket, Stream console, CancellationToken cancellation)
    {
        using CancellationTokenSource ended = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        Task outward = OutwardAsync(socket, console, ended.Token), inward = InwardAsync(socket, console, ended.Token);
        await Task.WhenAny(outward, inward).ConfigureAwait(false);
        if (socket.State is WebSocketState.Open or WebSocketState.CloseReceived)
        {
            // Either the guest ended, or this is the answer to the client's own goodbye.
            using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(5));
            await socket.CloseOutputAsync(WebSocketCloseStatus.NormalClosure, "the console ended", deadline.Token).ConfigureAwait(false);
        }

        await ended.CancelAsync().ConfigureAwait(false);
        foreach (Task task in new[] { outward, inward })
        {
            try
            {
                await task.ConfigureAwait(false);
            }
            catch (Exception e) when (e is OperationCanceledException or IOException or WebSocketException)
            {
                // One side left; that is how a console ends.
            }
        }
    }

    private static async Task OutwardAsync(WebSocket socket, Stream console, CancellationToken cancellation)
    {
        byte[] buffer = new byte[BufferBytes];
        int count;
        while ((count = await console.ReadAsync(buffer, cancellation).ConfigureAwait(false)) > 0)
        {
            await socket.SendAsync(buffer.AsMemory(0, count), WebSocketMessageType.Binary, endOfMessage: true, cancellation).ConfigureAwait(false);
        }
    }

    private static async Task InwardAsync(WebSocket socket, Stream console, CancellationToken cancellation)
    {
        byte[] buffer = new byte[BufferBytes];
        while (true)
        {
            ValueWebSocketReceiveResult received = await socket.ReceiveAsync(buffer.AsMemory(), cancellation).ConfigureAwait(false);
            if (received.MessageType == WebSocketMessageType.Close)
            {
                return;
            }

            await console.WriteAsync(buffer.AsMemory(0, received.Count), cancellation).ConfigureAwait(false);
            await console.FlushAsync(cancellation).ConfigureAwait(false);
        }
    }
}
