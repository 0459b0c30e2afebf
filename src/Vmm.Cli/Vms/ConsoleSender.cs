using System.Net.WebSockets;
using System.Text.Json;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Vms;

/// <summary>
/// What goes to a remote console: input as binary messages, the size of the terminal as text messages. One at a time, as a WebSocket asks
/// for.
/// </summary>
internal sealed class ConsoleSender(WebSocket socket, CancellationToken cancellation)
{
    private readonly Lock _one = new();

    /// <summary>Sends what was typed; false when the console is over.</summary>
    internal bool Input(ReadOnlyMemory<byte> bytes) => Send(bytes, WebSocketMessageType.Binary);

    /// <summary>Tells how big the terminal is now.</summary>
    internal void Size(ushort columns, ushort rows) =>
        _ = Send(
            JsonSerializer.SerializeToUtf8Bytes(new ConsoleSize(columns, rows), RestJson.Default.ConsoleSize), WebSocketMessageType.Text);

    private bool Send(ReadOnlyMemory<byte> message, WebSocketMessageType type)
    {
        lock (_one)
        {
            try
            {
                socket.SendAsync(message, type, endOfMessage: true, cancellation).AsTask().Wait(CancellationToken.None);
                return true;
            }
            catch (Exception e) when (e is AggregateException or ObjectDisposedException)
            {
                return false; // the receiving side sees the same end and reports it
            }
        }
    }
}
