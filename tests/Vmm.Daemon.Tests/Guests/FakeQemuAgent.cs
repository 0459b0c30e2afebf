using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Vmm.Interop;

namespace Vmm.Daemon.Tests.Guests;

/// <summary>
/// The guest's end of a standard agent's port: answers each command as the test says. What the host's end of a stream said is one text for
/// all streams, as in a guest, whose port outlives them.
/// </summary>
internal sealed class FakeQemuAgent : IAsyncDisposable
{
    private readonly Func<string, JsonElement, string?> _answer;
    private readonly CancellationTokenSource _stop = new();
    private readonly List<Task> _serving = [];

    /// <param name="answer">The line for a command and its arguments; null says nothing, an empty text hangs up.</param>
    internal FakeQemuAgent(Func<string, JsonElement, string?> answer) => _answer = answer;

    /// <summary>What is in the port before the answer to a sync.</summary>
    internal byte[] Stale { get; set; } = [];

    /// <summary>Commands in the order they came.</summary>
    internal List<string> Asked { get; } = [];

    /// <summary>A stream with its last words, as a worker gives.</summary>
    internal Stream Connect(byte[]? farewell = null)
    {
        (UnixStream own, FileDescriptorHandle theirs) = UnixStream.CreatePair();
        NetworkStream guest = Of(own.Detach());
        lock (_serving)
        {
            _serving.Add(Task.Run(() => ServeAsync(guest, farewell)));
        }

        return Of(theirs.Detach());
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await Task.WhenAll(_serving);
        _stop.Dispose();
    }

    private static NetworkStream Of(nint descriptor) =>
        new(new Socket(new SafeSocketHandle(descriptor, ownsHandle: true)), ownsSocket: true);

    private async Task ServeAsync(NetworkStream stream, byte[]? farewell)
    {
        await using NetworkStream own = stream;
        List<byte> line = [];
        byte[] buffer = new byte[4096];
        try
        {
            for (int count; (count = await stream.ReadAsync(buffer, _stop.Token)) > 0;)
            {
                if (!await TakeAsync(buffer[..count], line, stream))
                {
                    return;
                }
            }

            await TakeAsync(farewell ?? [], line, Stream.Null);
        }
        catch (Exception e) when (e is OperationCanceledException or IOException)
        {
            // The test is over, or the host went.
        }
    }

    private async Task<bool> TakeAsync(byte[] bytes, List<byte> line, Stream to)
    {
        foreach (byte b in bytes)
        {
            if (b == 0xFF)
            {
                line.Clear(); // ends whatever was there
            }
            else if (b != '\n')
            {
                line.Add(b);
            }
            else
            {
                string? said = Answer(Encoding.UTF8.GetString([.. line]));
                line.Clear();
                if (said is { Length: 0 })
                {
                    return false;
                }

                await to.WriteAsync(Encoding.Latin1.GetBytes(said ?? ""), _stop.Token);
            }
        }

        return true;
    }

    private string? Answer(string line)
    {
        using JsonDocument question = JsonDocument.Parse(line);
        string command = question.RootElement.GetProperty("execute").GetString()!;
        lock (Asked)
        {
            Asked.Add(command);
        }

        _ = question.RootElement.TryGetProperty("arguments", out JsonElement arguments);
        if (_answer(command, arguments) is { } answer)
        {
            return answer.Length == 0 ? "" : answer + "\n";
        }

        return command is "guest-sync-delimited"
            ? $"{Encoding.Latin1.GetString(Stale)}\u00ff{{\"return\": {arguments.GetProperty("id").GetInt64()}}}\n"
            : null;
    }
}
