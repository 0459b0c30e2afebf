using System.Globalization;
using System.Runtime.ExceptionServices;
using System.Text;
using Vmm.Devices.Virtio;
using Vmm.Machine.Saved;
using Vmm.Memory;

namespace Vmm.Machine.Moving;

/// <summary>
/// The sender's end of the channels, with a thread for each. It knows pages, not machines. What fails on one channel cuts all.
/// </summary>
internal sealed class MoveSender : IDisposable
{
    private const int MostReason = 1000; // bytes of a receiver's reason
    private const int AnswerPatience = 1000; // milliseconds, for the reason of a receiver that is gone

    private readonly IReadOnlyList<MoveChannel> _channels;
    private readonly IReadOnlyList<PendingPages> _parts;
    private readonly IIoThreads _threads;
    private readonly List<Thread> _running = [];
    private readonly object _gate = new();
    private Action<MoveChannel, byte[]>? _work; // of this turn
    private int _turn, _active;
    private bool _isOver;
    private ExceptionDispatchInfo? _failed;
    private long _next; // chunk of a round; of all parts, one after the other
    private volatile bool _cutShort;
    private long _zeros, _pages;

    /// <param name="channels">The channels, by number; owned.</param>
    /// <param name="parts">The memory.</param>
    /// <param name="threads">Starts threads and confines them.</param>
    internal MoveSender(IReadOnlyList<MoveChannel> channels, IReadOnlyList<PendingPages> parts, IIoThreads threads)
    {
        (_channels, _parts, _threads) = (channels, parts, threads.With(MoveChannel.Needs));
        try
        {
            foreach (MoveChannel channel in channels)
            {
                Thread thread = new(() => Serve(channel), maxStackSize: 256 * 1024) { Name = $"move{channel.Number}", IsBackground = true };
                _threads.Start(thread);
                _running.Add(thread);
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Bytes that went into the channels. Any thread.</summary>
    internal ulong Sent
    {
        get
        {
            ulong sent = 0;
            foreach (MoveChannel channel in _channels)
            {
                sent += channel.Sent;
            }

            return sent;
        }
    }

    /// <summary>Pages that were sent with their content. Any thread.</summary>
    internal ulong Pages => (ulong)Volatile.Read(ref _pages);

    /// <summary>Pages that were told as zeros, or skipped for that. Any thread.</summary>
    internal ulong Zeros => (ulong)Volatile.Read(ref _zeros);

    /// <summary>Greets on every channel, offers the machine, and waits until the receiver has its memory.</summary>
    /// <param name="session">The move.</param>
    /// <param name="offer">The machine's description.</param>
    /// <param name="passed">Memory that goes along by its descriptors, all of it or none.</param>
    /// <exception cref="MoveException">It does not want it, or a channel broke.</exception>
    internal void Greet(UInt128 session, byte[] offer, IReadOnlyList<VnodeMemory> passed)
    {
        RunOnAll((channel, _) =>
        {
            Span<byte> hello = stackalloc byte[MoveHello.Bytes];
            new MoveHello(MoveHello.Current, channel.Number, _channels.Count, session).Write(hello);
            channel.Send(new MoveFrame(MoveFrameKind.Hello, 0, 0, 0, hello.Length), hello);
            if (channel.Number == 0)
            {
                for (int i = 0; i < passed.Count; i++)
                {
                    ulong pages = passed[i].Placement.Size / MoveFrame.PageBytes;
                    channel.Pass(new MoveFrame(MoveFrameKind.Memory, i, pages, 0, 0), passed[i].BackingFile);
                }

                SendPieces(channel, MoveFrameKind.Offer, offer);
            }
        });
        Await(MoveFrameKind.Accepted);
    }

    /// <summary>Sends the pages that are pending, then marks the end of the round on every channel.</summary>
    /// <param name="round">Its number.</param>
    /// <param name="isFirst">The receiver has zeros wherever nothing was sent.</param>
    /// <param name="pace">The limit.</param>
    /// <exception cref="MoveException">A channel broke; the message has the receiver's reason where it gave one.</exception>
    internal void SendRound(int round, bool isFirst, MovePace pace)
    {
        _next = 0;
        _cutShort = false;
        RunOnAll((channel, buffer) =>
        {
            while (!_cutShort && TryClaim(out PendingPages? part, out int chunk))
            {
                SendChunk(channel, part!, chunk, isFirst, pace, buffer);
            }

            channel.Send(new MoveFrame(MoveFrameKind.Mark, 0, (ulong)round, 0, 0), default);
        });
    }

    /// <summary>Ends the round early: what was not sent stays pending. Any thread.</summary>
    internal void CutShort() => _cutShort = true;

    /// <summary>Sends the machine's state, and waits for the receiver's word that everything is there.</summary>
    /// <param name="document">The state.</param>
    /// <param name="isPaused">It was paused, and stays so.</param>
    /// <exception cref="MoveException">It is not.</exception>
    internal void Finish(byte[] document, bool isPaused)
    {
        RunOnAll((channel, _) =>
        {
            if (channel.Number == 0)
            {
                SendPieces(channel, MoveFrameKind.Document, document);
            }

            channel.Send(new MoveFrame(MoveFrameKind.End, 0, isPaused ? 1ul : 0, 0, 0), default);
        });
        Await(MoveFrameKind.Complete);
    }

    /// <summary>All channels end; whatever waits for them goes on with an error. Any thread, also again.</summary>
    internal void Cut()
    {
        foreach (MoveChannel channel in _channels)
        {
            channel.Cut();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Cut();
        lock (_gate)
        {
            _isOver = true;
            Monitor.PulseAll(_gate);
        }

        _running.ForEach(thread => thread.Join());
        foreach (MoveChannel channel in _channels)
        {
            channel.Dispose();
        }
    }

    private static void SendPieces(MoveChannel channel, MoveFrameKind kind, byte[] bytes)
    {
        for (int at = 0; at < bytes.Length;)
        {
            ReadOnlySpan<byte> piece = bytes.AsSpan(at, Math.Min(MoveFrame.MostBytes, bytes.Length - at));
            bool isLast = at + piece.Length == bytes.Length;
            channel.Send(new MoveFrame(kind, 0, (ulong)at, isLast ? 1u : 0, piece.Length), piece);
            at += piece.Length;
        }
    }

    private bool TryClaim(out PendingPages? part, out int chunk)
    {
        long number = Interlocked.Increment(ref _next) - 1;
        foreach (PendingPages each in _parts)
        {
            if (number < each.Chunks)
            {
                (part, chunk) = (each, (int)number);
                return true;
            }

            number -= each.Chunks;
        }

        (part, chunk) = (null, 0);
        return false;
    }

    private void SendChunk(MoveChannel channel, PendingPages part, int chunk, bool isFirst, MovePace pace, byte[] buffer)
    {
        if (!part.IsPresent(chunk))
        {
            part.Drop(chunk);
            return;
        }

        while (part.TryTake(chunk, MoveFrame.MostPages, out ulong first, out int count))
        {
            Span<byte> pages = buffer.AsSpan(MoveFrame.HeadBytes, count * MoveFrame.PageBytes);
            part.Copy(first, pages);
            int told = 0;
            while (PageRuns.TryFind(pages, told, out int start, out int end))
            {
                TellZeros(channel, part, first, told, start, isFirst);
                SendRun(channel, part, first, start, end, pace, buffer);
                told = end;
            }

            TellZeros(channel, part, first, told, pages.Length, isFirst);
        }
    }

    // The head goes right before the pages, over a page of zeros that is told of already.
    private void SendRun(MoveChannel channel, PendingPages part, ulong first, int start, int end, MovePace pace, byte[] buffer)
    {
        int count = (end - start) / MoveFrame.PageBytes;
        MoveFrame frame = new(MoveFrameKind.Pages, part.Number, first + (ulong)(start / MoveFrame.PageBytes), (uint)count, end - start);
        frame.Write(buffer.AsSpan(start), buffer.AsSpan(MoveFrame.HeadBytes + start, end - start));
        pace.Wait(end - start);
        channel.Send(buffer.AsSpan(start, MoveFrame.HeadBytes + end - start));
        Interlocked.Add(ref _pages, count);
    }

    private void TellZeros(MoveChannel channel, PendingPages part, ulong first, int from, int to, bool isFirst)
    {
        int count = (to - from) / MoveFrame.PageBytes;
        if (count == 0)
        {
            return;
        }

        Interlocked.Add(ref _zeros, count);
        if (!isFirst)
        {
            ulong page = first + (ulong)(from / MoveFrame.PageBytes);
            channel.Send(new MoveFrame(MoveFrameKind.Zeros, part.Number, page, (uint)count, 0), default);
        }
    }

    // On the thread of every channel at once; returns when all are done.
    private void RunOnAll(Action<MoveChannel, byte[]> work)
    {
        lock (_gate)
        {
            _work = work;
            _active = _channels.Count;
            _turn++;
            Monitor.PulseAll(_gate);
            while (_active > 0)
            {
                Monitor.Wait(_gate);
            }
        }

        if (_failed is { } failed)
        {
            throw Reason() is { } reason ? new MoveException(reason, failed.SourceException)
                : failed.SourceException is MoveException known ? new MoveException(known.Message, known)
                : new MoveException($"the memory cannot be sent: {failed.SourceException.Message}", failed.SourceException);
        }
    }

    private void Serve(MoveChannel channel)
    {
        byte[] buffer = new byte[MoveFrame.HeadBytes + MoveFrame.MostBytes];
        _threads.Ready();
        for (int turn = 1; ; turn++)
        {
            Action<MoveChannel, byte[]> work;
            lock (_gate)
            {
                while (_turn < turn && !_isOver)
                {
                    Monitor.Wait(_gate);
                }

                if (_isOver)
                {
                    return;
                }

                work = _work!;
            }

            try
            {
                work(channel, buffer);
            }
#pragma warning disable CA1031 // Whoever waits for the round gets it.
            catch (Exception cause)
#pragma warning restore CA1031
            {
                Fail(cause);
            }

            lock (_gate)
            {
                _active--;
                Monitor.PulseAll(_gate);
            }
        }
    }

    private void Fail(Exception cause)
    {
        Interlocked.CompareExchange(ref _failed, ExceptionDispatchInfo.Capture(cause), null);
        CutShort();
        for (int i = 1; i < _channels.Count; i++)
        {
            _channels[i].Cut(); // not channel 0: the receiver's reason may be in it
        }

        _channels[0].EndSend();
    }

    private void Await(MoveFrameKind wanted)
    {
        byte[] content = new byte[MoveFrame.MostBytes];
        MoveFrame answer = _channels[0].Receive(content);
        if (answer.Kind != wanted)
        {
            throw new MoveException(answer.Kind == MoveFrameKind.Refused
                ? Refusal(content.AsSpan(0, answer.Length)) : $"the receiver answered with {answer.Kind} instead of {wanted}");
        }
    }

    // Why the receiver went, when it said so.
    private string? Reason()
    {
        try
        {
            byte[] content = new byte[MoveFrame.MostBytes];
            return _channels[0].HasAnswer(AnswerPatience) && _channels[0].Receive(content) is { Kind: MoveFrameKind.Refused } refused
                ? Refusal(content.AsSpan(0, refused.Length)) : null;
        }
        catch (MoveException)
        {
            return null;
        }
    }

    // It comes from another host: no character of it is one that a terminal obeys.
    private static string Refusal(ReadOnlySpan<byte> said)
    {
        StringBuilder text = new("the receiver gave up: ");
        foreach (char c in Encoding.UTF8.GetString(said[..Math.Min(said.Length, MostReason)]))
        {
            bool isFormat = CharUnicodeInfo.GetUnicodeCategory(c) == UnicodeCategory.Format;
            text.Append(char.IsControl(c) || char.IsSurrogate(c) || isFormat ? '?' : c);
        }

        return text.ToString();
    }
}
