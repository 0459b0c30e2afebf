using System.Net.Sockets;
using System.Text;

namespace Vmm.Daemon.Tests.Guests;

/// <summary>
/// A VM's vsock socket with a guest behind it that answers line by line as the test says, or with a real agent on a unix socket.
/// </summary>
internal sealed class FakeGuest : IAsyncDisposable
{
    private readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly CancellationTokenSource _stop = new();
    private readonly TaskCompletionSource _hungUp = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Func<string, string?> _answer;
    private readonly string? _agent;
    private readonly Task _serving;

    /// <param name="path">The vsock's socket.</param>
    /// <param name="answer">What it answers to a line; null says nothing, an empty text hangs up.</param>
    /// <param name="agent">The socket of a real agent that is asked instead.</param>
    internal FakeGuest(string path, Func<string, string?>? answer = null, string? agent = null)
    {
        (_answer, _agent) = (answer ?? (_ => null), agent);
        _listener.Bind(new UnixDomainSocketEndPoint(path));
        _listener.Listen();
        _serving = ServeAsync();
    }

    internal List<string> Asked { get; } = [];

    /// <summary>Done when a peer hung up.</summary>
    internal Task HungUp => _hungUp.Task;

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        _listener.Dispose();
        await _serving;
        _stop.Dispose();
    }

    private async Task ServeAsync()
    {
        List<Task> peers = [];
        try
        {
            while (true)
            {
                peers.Add(PeerAsync(await _listener.AcceptAsync(_stop.Token)));
            }
        }
        catch (Exception e) when (e is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            await Task.WhenAll(peers);
        }
    }

    private async Task PeerAsync(Socket peer)
    {
        using Socket own = peer;
        using Socket behind = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await using NetworkStream stream = new(peer);
            using StreamReader reader = new(stream, Encoding.ASCII);
            while (await reader.ReadLineAsync(_stop.Token) is { } line)
            {
                Asked.Add(line);
                if (await AnswerAsync(line, behind) is not { } answer)
                {
                    continue;
                }

                if (answer.Length == 0)
                {
                    return;
                }

                await stream.WriteAsync(Encoding.UTF8.GetBytes(answer), _stop.Token);
            }
        }
        catch (Exception e) when (e is OperationCanceledException or SocketException or IOException)
        {
            // Its test is over, or the other side went.
        }
        finally
        {
            _hungUp.TrySetResult();
        }
    }

    private async Task<string?> AnswerAsync(string line, Socket behind)
    {
        if (_answer(line) is { } answer)
        {
            return answer;
        }

        if (line.StartsWith("CONNECT", StringComparison.Ordinal))
        {
            if (_agent is not null)
            {
                await behind.ConnectAsync(new UnixDomainSocketEndPoint(_agent), _stop.Token);
            }

            return "OK 4711\n";
        }

        if (_agent is null)
        {
            return null;
        }

        await behind.SendAsync(Encoding.ASCII.GetBytes(line + "\n"), _stop.Token);
        byte[] buffer = new byte[65536];
        return Encoding.ASCII.GetString(buffer, 0, await behind.ReceiveAsync(buffer, _stop.Token));
    }
}
