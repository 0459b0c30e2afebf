using System.Buffers;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Vmm.Daemon.Guests.Qemu;

/// <summary>
/// A conversation with the standard agent of a guest by its protocol (qemu-ga-ref(7)): a line asks, a line answers. It begins by
/// <c>guest-sync-delimited</c>, so that what an earlier conversation left in the port is never taken for an answer. Everything is bounded
/// in size here and in time by the caller; after a cancellation or an exception it is of no use, except after a refusal.
/// </summary>
internal sealed class QemuAgent : IDisposable
{
    /// <summary>What a stream's end tells a guest that may be frozen: a line of its own, whatever was cut off before it.</summary>
    internal static readonly byte[] Thaw = [Sentinel, .. "{\"execute\":\"guest-fsfreeze-thaw\"}\n"u8];

    /// <summary>Bytes of an answer that has no limit of its own.</summary>
    internal const int LongestAnswer = 256 * 1024;

    private const byte Sentinel = 0xFF; // no JSON has it: ends whatever the agent's parser was at, and begins the answer to a sync
    private const int MostLeft = 32 << 20; // of earlier conversations, skipped: more than the longest answer there is

    private readonly Stream _stream;
    private byte[] _buffer = new byte[4096];
    private int _start, _count;

    private QemuAgent(Stream stream) => _stream = stream;

    /// <inheritdoc/>
    public void Dispose() => _stream.Dispose();

    /// <summary>Begins a conversation.</summary>
    /// <param name="stream">To the port; owned, also when this throws.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <exception cref="QemuAgentException">Nobody there, or not an agent.</exception>
    /// <exception cref="OperationCanceledException">It was ended.</exception>
    internal static async Task<QemuAgent> OpenAsync(Stream stream, CancellationToken cancellation)
    {
        QemuAgent agent = new(stream);
        try
        {
            await agent.SynchroniseAsync(cancellation).ConfigureAwait(false);
            return agent;
        }
        catch
        {
            agent.Dispose();
            throw;
        }
    }

    /// <summary>Asks, and waits for the answer.</summary>
    /// <param name="command">Its name.</param>
    /// <param name="shape">What it returns.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <param name="arguments">Writes the members of <c>arguments</c>; null: it has none.</param>
    /// <param name="longest">Bytes that the answer can have.</param>
    /// <exception cref="QemuAgentException">It gave no answer.</exception>
    internal async Task<T> AskAsync<T>(
        string command, JsonTypeInfo<T> shape, CancellationToken cancellation, Action<Utf8JsonWriter>? arguments = null,
        int longest = LongestAnswer)
    {
        await SendAsync(command, arguments, cancellation).ConfigureAwait(false);
        return QemuAnswer.As(QemuAnswer.Read(await ReadLineAsync(longest, cancellation).ConfigureAwait(false)), shape);
    }

    /// <summary>Says something that is not answered when all goes well.</summary>
    internal Task SendAsync(string command, Action<Utf8JsonWriter>? arguments, CancellationToken cancellation)
    {
        ArrayBufferWriter<byte> line = new();
        using (Utf8JsonWriter json = new(line))
        {
            json.WriteStartObject();
            json.WriteString("execute"u8, command);
            if (arguments is not null)
            {
                json.WriteStartObject("arguments"u8);
                arguments(json);
                json.WriteEndObject();
            }

            json.WriteEndObject();
        }

        line.Write("\n"u8);
        return WriteAsync(line.WrittenMemory, cancellation);
    }

    private async Task SynchroniseAsync(CancellationToken cancellation)
    {
        int id = RandomNumberGenerator.GetInt32(1, int.MaxValue);
        await WriteAsync(new byte[] { Sentinel }, cancellation).ConfigureAwait(false);
        await SendAsync("guest-sync-delimited", json => json.WriteNumber("id"u8, id), cancellation).ConfigureAwait(false);
        for (long left = MostLeft; ;)
        {
            left -= await SkipToSentinelAsync(left, cancellation).ConfigureAwait(false);
            ReadOnlyMemory<byte> line = await ReadLineAsync(LongestAnswer, cancellation).ConfigureAwait(false);
            left -= line.Length;
            line = line[(line.Span.LastIndexOf(Sentinel) + 1)..];
            if (IsAnswerTo(id, line))
            {
                return;
            }
        }
    }

    // Another id is the answer to a conversation that was given up.
    private static bool IsAnswerTo(int id, ReadOnlyMemory<byte> line)
    {
        try
        {
            return QemuAnswer.Read(line) is { ValueKind: JsonValueKind.Number } value && value.TryGetInt64(out long said) && said == id;
        }
        catch (QemuAgentException)
        {
            return false;
        }
    }

    private async Task<long> SkipToSentinelAsync(long most, CancellationToken cancellation)
    {
        for (long skipped = 0; ;)
        {
            int at = _buffer.AsSpan(_start, _count).IndexOf(Sentinel);
            int gone = at < 0 ? _count : at + 1;
            (_start, _count, skipped) = (_start + gone, _count - gone, skipped + gone);
            if (at >= 0)
            {
                return skipped;
            }

            if (skipped > most)
            {
                throw new QemuAgentException(QemuAgentFault.Unsound, "the guest floods its agent's port");
            }

            await FillAsync(cancellation).ConfigureAwait(false);
        }
    }

    // The line is good until the next call.
    private async Task<ReadOnlyMemory<byte>> ReadLineAsync(int longest, CancellationToken cancellation)
    {
        for (int looked = 0; ;)
        {
            int end = _buffer.AsSpan(_start + looked, _count - looked).IndexOf((byte)'\n');
            if (end >= 0)
            {
                ReadOnlyMemory<byte> line = _buffer.AsMemory(_start, looked + end);
                (_start, _count) = (_start + looked + end + 1, _count - looked - end - 1);
                return line;
            }

            looked = _count;
            if (_count > longest)
            {
                throw new QemuAgentException(QemuAgentFault.Unsound, $"the guest's agent answers with more than {longest} bytes");
            }

            await FillAsync(cancellation).ConfigureAwait(false);
        }
    }

    private async Task FillAsync(CancellationToken cancellation)
    {
        if (_start > 0)
        {
            _buffer.AsSpan(_start, _count).CopyTo(_buffer);
            _start = 0;
        }

        if (_count == _buffer.Length)
        {
            Array.Resize(ref _buffer, _buffer.Length * 2);
        }

        try
        {
            int got = await _stream.ReadAsync(_buffer.AsMemory(_count), cancellation).ConfigureAwait(false);
            _count += got > 0 ? got : throw new QemuAgentException(QemuAgentFault.None, "the guest's agent went");
        }
        catch (Exception cause) when (cause is IOException or SocketException)
        {
            throw new QemuAgentException(QemuAgentFault.None, "the guest's agent went", cause);
        }
    }

    private async Task WriteAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellation)
    {
        try
        {
            await _stream.WriteAsync(bytes, cancellation).ConfigureAwait(false);
        }
        catch (Exception cause) when (cause is IOException or SocketException)
        {
            throw new QemuAgentException(QemuAgentFault.None, "the guest's agent went", cause);
        }
    }
}
