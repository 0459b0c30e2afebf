using System.Net.WebSockets;
using System.Text.Json;
using Vmm.Contracts.Control;
using Vmm.Daemon.Access;

namespace Vmm.Daemon.Api;

/// <summary>Copies between a WebSocket and a console until either side ends.</summary>
internal static class ConsoleBridge
{
    private const int BufferBytes = 16 * 1024;
    private static readonly TimeSpan s_answer = TimeSpan.FromSeconds(2);

    /// <param name="socket">The client's side.</param>
    /// <param name="console">The guest's side.</param>
    /// <param name="resize">Hears of the size of the client's terminal.</param>
    /// <param name="welcome">Over when the client may use the console no longer; it is told so.</param>
    /// <param name="cancellation">Cancelled when the client is gone.</param>
    internal static async Task RunAsync(
        WebSocket socket,
        Stream console,
        Func<ConsoleSize, CancellationToken, Task> resize,
        Welcome welcome,
        CancellationToken cancellation)
    {
        using CancellationTokenSource ended = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        Task outward = OutwardAsync(socket, console, ended.Token), inward = InwardAsync(socket, console, resize, welcome.Over, ended.Token);
        await Task.WhenAny(outward, inward, Task.Delay(Timeout.Infinite, welcome.Over)).ConfigureAwait(false);
        if (socket.State is WebSocketState.Open or WebSocketState.CloseReceived && !cancellation.IsCancellationRequested)
        {
            await GoodbyeAsync(socket, welcome.Over.IsCancellationRequested ? welcome.Reason : null).ConfigureAwait(false);
            // Until the client answers: who stops reading before resets the connection, and the reason for the end may be lost.
            await Task.WhenAny(inward, Task.Delay(s_answer, cancellation)).ConfigureAwait(false);
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

    // Either the guest ended, or this is the answer to the client's own goodbye, or it stayed longer than it may.
    private static async Task GoodbyeAsync(WebSocket socket, string? unwelcome)
    {
        using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(5));
        try
        {
            await (unwelcome is not null
                ? socket.CloseOutputAsync(WebSocketCloseStatus.PolicyViolation, unwelcome, deadline.Token)
                : socket.CloseOutputAsync(WebSocketCloseStatus.NormalClosure, "the console ended", deadline.Token)).ConfigureAwait(false);
        }
        catch (Exception e) when (e is OperationCanceledException or IOException or WebSocketException)
        {
            // It reads no more, or left meanwhile.
        }
    }

    private static async Task OutwardAsync(WebSocket socket, Stream console, CancellationToken cancellation)
    {
        byte[] buffer = new byte[BufferBytes];
        int count;
        while ((count = await console.ReadAsync(buffer, cancellation).ConfigureAwait(false)) > 0)
        {
            await socket.SendAsync(
                buffer.AsMemory(0, count), WebSocketMessageType.Binary, endOfMessage: true, cancellation).ConfigureAwait(false);
        }
    }

    // Until the client answers, as with any goodbye.
    private static async Task RefuseAsync(WebSocket socket, byte[] buffer, CancellationToken cancellation)
    {
        await socket.CloseOutputAsync(
            WebSocketCloseStatus.InvalidPayloadData, "a text message is {\"columns\":N,\"rows\":N}", cancellation).ConfigureAwait(false);
        using CancellationTokenSource deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(s_answer);
        while ((await socket.ReceiveAsync(buffer.AsMemory(), deadline.Token).ConfigureAwait(false)).MessageType
            != WebSocketMessageType.Close)
        {
            continue;
        }
    }

    // Null: no size.
    private static ConsoleSize? ReadSize(ReadOnlySpan<byte> text)
    {
        try
        {
            return JsonSerializer.Deserialize(text, RequestJson.Default.ConsoleSize);
        }
        catch (JsonException)
        {
            return null;
        }
    }

    private static async Task InwardAsync(
        WebSocket socket,
        Stream console,
        Func<ConsoleSize, CancellationToken, Task> resize,
        CancellationToken welcome,
        CancellationToken cancellation)
    {
        byte[] buffer = new byte[BufferBytes];
        while (true)
        {
            ValueWebSocketReceiveResult received = await socket.ReceiveAsync(buffer.AsMemory(), cancellation).ConfigureAwait(false);
            if (received.MessageType == WebSocketMessageType.Close)
            {
                return;
            }

            if (received.MessageType == WebSocketMessageType.Text)
            {
                if (!received.EndOfMessage || ReadSize(buffer.AsSpan(0, received.Count)) is not { } size)
                {
                    await RefuseAsync(socket, buffer, cancellation).ConfigureAwait(false);
                    return;
                }

                if (!welcome.IsCancellationRequested)
                {
                    await resize(size, cancellation).ConfigureAwait(false);
                }

                continue;
            }

            if (!welcome.IsCancellationRequested) // afterwards only the answer to the goodbye counts
            {
                await console.WriteAsync(buffer.AsMemory(0, received.Count), cancellation).ConfigureAwait(false);
                await console.FlushAsync(cancellation).ConfigureAwait(false);
            }
        }
    }
}
