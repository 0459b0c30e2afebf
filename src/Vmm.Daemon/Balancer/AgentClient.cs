using System.Net.Sockets;
using System.Text;

namespace Vmm.Daemon.Balancer;

/// <summary>
/// Asks the agent in a guest through the VM's vsock: one question, one line, in bounded time. The guest is not trusted, nor is it waited
/// for.
/// </summary>
internal static class AgentClient
{
    /// <summary>The agent's vsock port.</summary>
    internal const int Port = 1028;

    private const int LongestLine = 64 * 1024;

    private static readonly byte[] s_connect = Encoding.ASCII.GetBytes($"CONNECT {Port}\n"),
        s_question = "{\"v\":1,\"get\":\"memory\"}\n"u8.ToArray();

    /// <summary>Null when there is no agent, or it says nothing sound in time.</summary>
    /// <param name="path">The VM's vsock socket.</param>
    /// <param name="patience">For all of it.</param>
    /// <param name="cancellation">Ends it early.</param>
    internal static async Task<AgentReport?> AskAsync(string path, TimeSpan patience, CancellationToken cancellation)
    {
        using CancellationTokenSource deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(patience);
        using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), deadline.Token).ConfigureAwait(false);
            await socket.SendAsync(s_connect, deadline.Token).ConfigureAwait(false);
            if (await LineAsync(socket, deadline.Token).ConfigureAwait(false) is not { } welcome || !welcome.AsSpan().StartsWith("OK "u8))
            {
                return null;
            }

            await socket.SendAsync(s_question, deadline.Token).ConfigureAwait(false);
            return await LineAsync(socket, deadline.Token).ConfigureAwait(false) is { } answer ? AgentReport.TryRead(answer) : null;
        }
        catch (Exception e) when (e is SocketException or OperationCanceledException or ArgumentException)
        {
            return null;
        }
    }

    /// <summary>
    /// A line without its end; null when it is too long or does not end. Both ends take turns: nothing follows a line before the next
    /// question.
    /// </summary>
    private static async Task<byte[]?> LineAsync(Socket socket, CancellationToken cancellation)
    {
        byte[] buffer = new byte[LongestLine];
        for (int length = 0; length < buffer.Length;)
        {
            int count = await socket.ReceiveAsync(buffer.AsMemory(length), cancellation).ConfigureAwait(false);
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
