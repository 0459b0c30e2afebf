using Vmm.Interop;

namespace Vmm.Machine.Moving;

/// <summary>
/// One channel of a move: a connected stream. One thread sends and one receives; any may cut it, which ends both. Waits without a limit:
/// who has a deadline cuts it.
/// </summary>
/// <param name="stream">The stream; owned.</param>
/// <param name="number">Which channel it is.</param>
internal sealed class MoveChannel(FileDescriptorHandle stream, int number) : IDisposable
{
    private readonly UnixStream _stream = UnixStream.FromDescriptor(stream);
    private readonly byte[] _head = new byte[MoveFrame.HeadBytes]; // of what is received
    private long _sent, _received;

    /// <summary>What its threads ask of the kernel.</summary>
    internal static SyscallNeeds Needs { get; } = UnixStream.TransferNeeds;

    /// <summary>Which channel it is.</summary>
    internal int Number => number;

    /// <summary>Bytes that went in. Any thread.</summary>
    internal ulong Sent => (ulong)Volatile.Read(ref _sent);

    /// <summary>Bytes that came out. Any thread.</summary>
    internal ulong Received => (ulong)Volatile.Read(ref _received);

    /// <summary>Sends all of it.</summary>
    /// <exception cref="MoveException">The far side reads no more, or the channel was cut.</exception>
    internal void Send(ReadOnlySpan<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            int sent = _stream.Send(bytes);
            if (sent < 0)
            {
                throw Broken("reads no more");
            }

            if (sent == 0)
            {
                Wait(read: false);
            }

            Volatile.Write(ref _sent, _sent + sent);
            bytes = bytes[sent..];
        }
    }

    /// <summary>Sends a frame with a short content.</summary>
    /// <exception cref="MoveException">The far side reads no more, or the channel was cut.</exception>
    internal void Send(in MoveFrame frame, ReadOnlySpan<byte> content)
    {
        Span<byte> head = stackalloc byte[MoveFrame.HeadBytes];
        frame.Write(head, content);
        Send(head);
        Send(content);
    }

    /// <summary>Sends a head with a descriptor, to a far side that takes some.</summary>
    /// <exception cref="MoveException">The far side reads no more, or the channel was cut.</exception>
    internal void Pass(in MoveFrame frame, FileDescriptorHandle passed)
    {
        Span<byte> head = stackalloc byte[MoveFrame.HeadBytes];
        frame.Write(head, default);
        try
        {
            _stream.SendWhole(head, [passed], timeoutMilliseconds: -1);
        }
        catch (KernelException cause)
        {
            throw new MoveException($"the memory cannot be passed: {cause.Message}", cause);
        }

        Volatile.Write(ref _sent, _sent + head.Length);
    }

    /// <summary>Sends a short frame when there is room for it now: for last words, which nobody may read.</summary>
    internal void TrySend(in MoveFrame frame, ReadOnlySpan<byte> content)
    {
        byte[] bytes = new byte[MoveFrame.HeadBytes + content.Length];
        content.CopyTo(bytes.AsSpan(MoveFrame.HeadBytes));
        frame.Write(bytes, content);
        _ = _stream.Send(bytes);
    }

    /// <summary>Receives a frame.</summary>
    /// <param name="content">Takes the content; <see cref="MoveFrame.MostBytes"/> of room.</param>
    /// <exception cref="MoveException">The channel ended, or brought what is no frame.</exception>
    internal MoveFrame Receive(Span<byte> content)
    {
        ReceiveAll(_head);
        return Receive(_head, content);
    }

    /// <summary>Receives a frame, with the descriptor that came with its head.</summary>
    /// <param name="content">As above.</param>
    /// <param name="passed">The descriptor, the caller's; null: there was none.</param>
    /// <exception cref="MoveException">As above.</exception>
    internal MoveFrame Receive(Span<byte> content, out FileDescriptorHandle? passed)
    {
        int received;
        while ((received = _stream.Receive(_head, out passed)) < 0)
        {
            Wait(read: true);
        }

        try
        {
            if (received == 0)
            {
                throw Broken("ended too early");
            }

            Volatile.Write(ref _received, _received + received);
            ReceiveAll(_head.AsSpan(received));
            return Receive(_head, content);
        }
        catch
        {
            passed?.Dispose();
            passed = null;
            throw;
        }
    }

    private MoveFrame Receive(ReadOnlySpan<byte> head, Span<byte> content)
    {
        if (!MoveFrame.TryRead(head, out MoveFrame frame, out string problem))
        {
            throw new MoveException($"channel {number} brought {problem}");
        }

        content = content[..frame.Length];
        ReceiveAll(content);
        return MoveFrame.Checks(head, content)
            ? frame
            : throw new MoveException($"channel {number} brought a frame ({frame.Kind}) whose checksum does not fit: it was damaged");
    }

    /// <summary>Sends no more, and can receive still.</summary>
    internal void EndSend() => _stream.EndSend();

    /// <summary>Both directions end; a thread that waits here goes on with an error. Any thread, also again.</summary>
    internal void Cut() => _stream.Shutdown();

    /// <summary>Whether something came within a time.</summary>
    internal bool HasAnswer(int milliseconds)
    {
        Span<PollEntry> polls = [new PollEntry(_stream, read: true)];
        return Poll.Wait(polls, milliseconds) > 0;
    }

    /// <inheritdoc/>
    public void Dispose() => _stream.Dispose();

    private void ReceiveAll(Span<byte> into)
    {
        while (!into.IsEmpty)
        {
            int received = _stream.Receive(into);
            if (received == 0)
            {
                throw Broken("ended too early");
            }

            if (received < 0)
            {
                Wait(read: true);
                continue;
            }

            Volatile.Write(ref _received, _received + received);
            into = into[received..];
        }
    }

    private void Wait(bool read)
    {
        Span<PollEntry> polls = [new PollEntry(_stream, read, write: !read)];
        Poll.Wait(polls, -1);
    }

    private MoveException Broken(string how) => new($"the far side of channel {number} {how}");
}
