using System.Net.Sockets;
using System.Text;

namespace Vmm.Daemon.Guests;

/// <summary>
/// A connection to the agent in a guest through the VM's vsock (deploy/guest-agent/README.md): a question is a line, and so is its answer,
/// of bounded length. How long to wait is the caller's to say. The guest and the worker between are not trusted.
/// </summary>
internal sealed class AgentConnection : IDisposable
{
    /// <summary>The agent's vsock port.</summary>
    internal const int Port = 1028;

    private const int LongestLine = 64 * 1024;

    private static readonly byte[] s_connect = Encoding.ASCII.GetBytes($"CONNECT {Port}\n");

    private readonly Socket _socket;

    private AgentConnection(Socket socket) => _socket = socket;

    /// <summary>Closes it: what the guest froze for it thaws.</summary>
    public void Dispose() => _socket.Dispose();

    /// <summary>Null when nobody listens in the guest.</summary>
    /// <param name="path">The VM's vsock socket.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <exception cref="OperationCanceledException">It was ended.</exception>
    internal static async Task<AgentConnection?> OpenAsync(string path, CancellationToken cancellation)
    {
        AgentConnection connection = new(new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified));
        bool isOpen = false;
        try
        {
            await connection._socket.ConnectAsync(new UnixDomainSocketEndPoint(path), cancellation).ConfigureAwait(false);
            isOpen = await connection.ExchangeAsync(s_connect, cancellation).ConfigureAwait(false) is { } welcome
                && welcome.AsSpan().StartsWith("OK "u8);
            return isOpen ? connection : null;
        }
        catch (Exception e) when (e is SocketException or ArgumentException)
        {
            return null; // no socket, or a path that is longer than a socket's
        }
        finally
        {
            if (!isOpen)
            {
                connection.Dispose();
            }
        }
    }

    /// <summary>The answer without its end of line; null when it hung up, or said too much.</summary>
    /// <param name="question">A line without its end.</param>
    /// <param name="cancellation">Ends the waiting; the connection is of no use then.</param>
    /// <exception cref="OperationCanceledException">It was ended.</exception>
    internal async Task<byte[]?> AskAsync(string question, CancellationToken cancellation)
    {
        try
        {
            return await ExchangeAsync(Encoding.ASCII.GetBytes(question + "\n"), cancellation).ConfigureAwait(false);
        }
        catch (SocketException)
        {
            return null;
        }
    }

    /// <summary>Both ends take turns: nothing follows a line before the next question. What does all the same is not kept.</summary>
    private async Task<byte[]?> ExchangeAsync(byte[] line, CancellationToken cancellation)
    {
        for (int sent = 0; sent < line.Length;)
        {
            sent += await _socket.SendAsync(line.AsMemory(sent), cancellation).ConfigureAwait(false);
        }

        byte[] buffer = new byte[LongestLine];
        for (int length = 0; length < buffer.Length;)
        {
            int count = await _socket.ReceiveAsync(buffer.AsMemory(length), cancellation).ConfigureAwait(false);
            int end = buffer.AsSpan(length, count).IndexOf((byte)'\n');
            if (end >= 0)
            {
                return buffer[..(length + end)];
            }

            if (count == 0)
            {
                return null;
            }

            length += count;
        }

        return null;
    }
}
