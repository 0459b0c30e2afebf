using System.Net.Sockets;
using System.Text;

namespace Vmm.Daemon.Tests.Balancer;

/// <summary>
/// A VM's vsock socket with something behind its port 1028: a text that is said, or another socket that is connected through.
/// </summary>
internal sealed class FakeVsock : IAsyncDisposable
{
    private readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _serving;

    internal FakeVsock(string path, string? agent = null)
    {
        _listener.Bind(new UnixDomainSocketEndPoint(path));
        _listener.Listen();
        _serving = ServeAsync(agent);
    }

    /// <summary>What the guest answers to any question; null hangs.</summary>
    internal string? Answer { get; set; }

    internal List<string> Asked { get; } = [];

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        _listener.Dispose();
        await _serving;
        _stop.Dispose();
    }

    private async Task ServeAsync(string? agent)
    {
        List<Task> peers = [];
        try
        {
            while (true)
            {
                peers.Add(PeerAsync(await _listener.AcceptAsync(_stop.Token), agent));
            }
        }
        catch (Exception e) when (e is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            await Task.WhenAll(peers);
        }
    }

    private async Task PeerAsync(Socket peer, string? agent)
    {
        using Socket own = peer;
        try
        {
            await using NetworkStream stream = new(peer);
            using StreamReader reader = new(stream, Encoding.ASCII);
            Asked.Add(await reader.ReadLineAsync(_stop.Token) ?? "");
            await peer.SendAsync("OK 4711\n"u8.ToArray(), _stop.Token);
            string? question = await reader.ReadLineAsync(_stop.Token);
            Asked.Add(question ?? "");
            if (agent is null)
            {
                await (Answer is { } answer
                    ? peer.SendAsync(Encoding.UTF8.GetBytes(answer), _stop.Token).AsTask()
                    : Task.Delay(Timeout.Infinite, _stop.Token));
                return;
            }

            using Socket behind = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await behind.ConnectAsync(new UnixDomainSocketEndPoint(agent), _stop.Token);
            await behind.SendAsync(Encoding.ASCII.GetBytes(question + "\n"), _stop.Token);
            byte[] buffer = new byte[65536];
            int count = await behind.ReceiveAsync(buffer, _stop.Token);
            await peer.SendAsync(buffer.AsMemory(0, count), _stop.Token);
        }
        catch (Exception e) when (e is OperationCanceledException or SocketException or IOException)
        {
            // Its test is over, or the other side went.
        }
    }
}
