using System.Text;
using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.State;

namespace Vmm.Machine.Moving;

/// <summary>
/// The receiver's end of the channels, with a thread for each, which may do little more than receive and write into the memory. Nothing
/// that comes is trusted: what it may allocate is bounded, what does not fit ends the move. A round counts on all channels before the next
/// begins on any: two channels never write one page at once.
/// </summary>
internal sealed class MoveReceiver : IDisposable
{
    private const int MostOffer = 4 << 20, MostReason = 1000;

    private readonly IReadOnlyList<MoveChannel> _channels;
    private readonly IIoThreads _threads;
    private readonly bool _mayPass;
    private readonly List<FileDescriptorHandle> _passed = []; // under the gate
    private readonly List<Thread> _running = [];
    private readonly object _gate = new();
    private readonly Pieces _offer = new(MostOffer, "the machine's description");
    private readonly Pieces _document = new(StateDocument.MaxBytes, "the machine's state");
    private IReadOnlyList<IMovedMemory>? _memory; // under the gate
    private UInt128? _session; // under the gate
    private string? _problem; // under the gate
    private int _marked, _ended; // channels, under the gate
    private ulong _round = 1; // that is received; under the gate

    /// <summary>Begins to receive.</summary>
    /// <param name="channels">The channels, by number; owned.</param>
    /// <param name="threads">Starts threads and confines them.</param>
    /// <param name="mayPass">The sender is a process of this host, and may pass the memory itself.</param>
    internal MoveReceiver(IReadOnlyList<MoveChannel> channels, IIoThreads threads, bool mayPass)
    {
        (_channels, _threads, _mayPass) = (channels, threads, mayPass);
        try
        {
            foreach (MoveChannel channel in channels)
            {
                Thread thread = new(() => Serve(channel), maxStackSize: 256 * 1024)
                {
                    Name = $"receive{channel.Number}",
                    IsBackground = true,
                };
                threads.Start(thread);
                _running.Add(thread);
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Bytes that came out of the channels. Any thread.</summary>
    internal ulong Received
    {
        get
        {
            ulong received = 0;
            foreach (MoveChannel channel in _channels)
            {
                received += channel.Received;
            }

            return received;
        }
    }

    /// <summary>The machine was paused, and is to stay so. After <see cref="AwaitEnd"/>.</summary>
    internal bool IsPaused { get; private set; }

    /// <summary>Why it failed; null: it did not. Any thread.</summary>
    internal string? Problem
    {
        get
        {
            lock (_gate)
            {
                return _problem;
            }
        }
    }

    /// <summary>Waits for the description of the machine.</summary>
    /// <exception cref="MoveException">It failed.</exception>
    internal byte[] AwaitOffer() => AwaitWhole(_offer);

    /// <summary>The memory that was passed, by number, now the caller's; none: it is sent. After <see cref="AwaitOffer"/>.</summary>
    internal IReadOnlyList<FileDescriptorHandle> TakePassed()
    {
        lock (_gate)
        {
            FileDescriptorHandle[] passed = [.. _passed];
            _passed.Clear();
            return passed;
        }
    }

    /// <summary>The memory that is to be filled, by number; the sender is told to begin.</summary>
    internal void Accept(IReadOnlyList<IMovedMemory> memory)
    {
        lock (_gate)
        {
            _memory = memory;
            Monitor.PulseAll(_gate);
        }

        _channels[0].Send(new MoveFrame(MoveFrameKind.Accepted, 0, 0, 0, 0), default);
    }

    /// <summary>Waits until all channels have ended, as they should.</summary>
    /// <returns>The machine's state.</returns>
    /// <exception cref="MoveException">It failed.</exception>
    internal byte[] AwaitEnd()
    {
        lock (_gate)
        {
            while (_problem is null && _ended < _channels.Count)
            {
                Monitor.Wait(_gate);
            }

            ThrowIfFailed();
        }

        return AwaitWhole(_document);
    }

    /// <summary>Tells the sender that everything is there.</summary>
    /// <exception cref="MoveException">It is gone.</exception>
    internal void Complete()
    {
        _running.ForEach(thread => thread.Join()); // they have ended
        _channels[0].Send(new MoveFrame(MoveFrameKind.Complete, 0, 0, 0, 0), default);
    }

    /// <summary>It failed, whoever found out: the sender is told why, and all threads end. The first reason counts. Any thread.</summary>
    internal void Fail(string problem)
    {
        lock (_gate)
        {
            if (_problem is not null)
            {
                return;
            }

            _problem = problem;
            Monitor.PulseAll(_gate);
        }

        byte[] reason = Encoding.UTF8.GetBytes(problem.Length > MostReason ? problem[..MostReason] : problem);
        _channels[0].TrySend(new MoveFrame(MoveFrameKind.Refused, 0, 0, 0, reason.Length), reason);
        foreach (MoveChannel channel in _channels)
        {
            channel.Cut();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Fail("it was given up");
        _running.ForEach(thread => thread.Join());
        foreach (MoveChannel channel in _channels)
        {
            channel.Dispose();
        }

        _passed.ForEach(file => file.Dispose());
    }

    private void Serve(MoveChannel channel)
    {
        try
        {
            byte[] content = new byte[MoveFrame.MostBytes];
            _threads.Ready();
            Greet(channel, content);
            IReadOnlyList<IMovedMemory> memory = AwaitMemory();
            for (bool goesOn = true; goesOn;)
            {
                MoveFrame frame = channel.Receive(content);
                goesOn = Take(channel, frame, content.AsSpan(0, frame.Length), memory);
            }
        }
#pragma warning disable CA1031 // Whatever it was, this move ends with its reason.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            Fail(cause is MoveException ? cause.Message : $"the memory cannot be filled: {cause.Message}");
        }
    }

    private void Greet(MoveChannel channel, byte[] content)
    {
        MoveFrame frame = channel.Receive(content);
        if (frame.Kind != MoveFrameKind.Hello)
        {
            throw Unexpected(channel, frame);
        }

        MoveHello hello = MoveHello.Read(content.AsSpan(0, frame.Length), channel.Number, _channels.Count);
        lock (_gate)
        {
            if ((_session ??= hello.Session) != hello.Session)
            {
                throw new MoveException($"channel {channel.Number} is of another move than the others");
            }
        }

        while (channel.Number == 0 && !_offer.IsWhole)
        {
            FileDescriptorHandle? passed = null;
            frame = _mayPass ? channel.Receive(content, out passed) : channel.Receive(content);
            if (frame.Kind == MoveFrameKind.Memory && passed is not null && frame.Part == _passed.Count && !_offer.HasBegun)
            {
                Keep(passed);
                continue;
            }

            passed?.Dispose();
            if (frame.Kind != MoveFrameKind.Offer)
            {
                throw Unexpected(channel, frame);
            }

            Add(_offer, frame, content.AsSpan(0, frame.Length));
        }
    }

    // By the thread of channel 0; as many as a byte can count.
    private void Keep(FileDescriptorHandle passed)
    {
        lock (_gate)
        {
            _passed.Add(passed);
        }
    }

    // False: that was the last frame of the channel.
    private bool Take(MoveChannel channel, in MoveFrame frame, ReadOnlySpan<byte> content, IReadOnlyList<IMovedMemory> memory)
    {
        if (channel.Number == 0 && _document.HasBegun && frame.Kind is not (MoveFrameKind.Document or MoveFrameKind.End))
        {
            throw Unexpected(channel, frame);
        }

        switch (frame.Kind)
        {
            case MoveFrameKind.Pages:
                Check(channel, frame, memory).Fill(frame.First * MoveFrame.PageBytes, content);
                return true;
            case MoveFrameKind.Zeros:
                Check(channel, frame, memory).Clear(frame.First * MoveFrame.PageBytes, (ulong)frame.Count * MoveFrame.PageBytes);
                return true;
            case MoveFrameKind.Mark:
                EndRound(channel, frame.First);
                return true;
            case MoveFrameKind.Document when channel.Number == 0:
                Add(_document, frame, content);
                return true;
            case MoveFrameKind.End when channel.Number != 0 || _document.IsWhole:
                lock (_gate)
                {
                    IsPaused |= frame.First != 0;
                    _ended++;
                    Monitor.PulseAll(_gate);
                }

                return false;
            default:
                throw Unexpected(channel, frame);
        }
    }

    private static IMovedMemory Check(MoveChannel channel, in MoveFrame frame, IReadOnlyList<IMovedMemory> memory)
    {
        if (frame.Part >= memory.Count)
        {
            throw new MoveException($"channel {channel.Number} brought pages of memory {frame.Part}; there are {memory.Count}");
        }

        IMovedMemory part = memory[frame.Part];
        ulong pages = part.Bytes / MoveFrame.PageBytes;
        return frame.First < pages && frame.Count <= pages - frame.First
            ? part
            : throw new MoveException(
                $"channel {channel.Number} brought {frame.Count} pages from page {frame.First} of memory {frame.Part}, which has {pages}");
    }

    private void EndRound(MoveChannel channel, ulong round)
    {
        lock (_gate)
        {
            ThrowIfFailed();
            if (round != _round)
            {
                throw new MoveException($"channel {channel.Number} ended round {round} in round {_round}");
            }

            if (++_marked == _channels.Count)
            {
                _marked = 0;
                _round++;
                Monitor.PulseAll(_gate);
                return;
            }

            while (_round == round && _problem is null)
            {
                Monitor.Wait(_gate);
            }

            ThrowIfFailed();
        }
    }

    private void Add(Pieces pieces, in MoveFrame frame, ReadOnlySpan<byte> content)
    {
        lock (_gate)
        {
            pieces.Add(frame, content);
            Monitor.PulseAll(_gate);
        }
    }

    private IReadOnlyList<IMovedMemory> AwaitMemory()
    {
        lock (_gate)
        {
            while (_memory is null && _problem is null)
            {
                Monitor.Wait(_gate);
            }

            ThrowIfFailed();
            return _memory!;
        }
    }

    private byte[] AwaitWhole(Pieces pieces)
    {
        lock (_gate)
        {
            while (!pieces.IsWhole && _problem is null)
            {
                Monitor.Wait(_gate);
            }

            ThrowIfFailed();
            return pieces.Bytes;
        }
    }

    // Under the gate.
    private void ThrowIfFailed()
    {
        if (_problem is { } problem)
        {
            throw new MoveException(problem);
        }
    }

    private static MoveException Unexpected(MoveChannel channel, in MoveFrame frame) =>
        new($"channel {channel.Number} brought a frame ({frame.Kind}) that does not belong there");

    /// <summary>Bytes that come in pieces, in order. They take no more memory than what has come.</summary>
#pragma warning disable CA1001 // A stream in memory has nothing to give back.
    private sealed class Pieces(int most, string what)
#pragma warning restore CA1001
    {
        private readonly MemoryStream _bytes = new();

        internal bool HasBegun => _bytes.Length > 0;

        internal bool IsWhole { get; private set; }

        internal byte[] Bytes => _bytes.ToArray();

        internal void Add(in MoveFrame frame, ReadOnlySpan<byte> content)
        {
            if (IsWhole || frame.First != (ulong)_bytes.Length)
            {
                throw new MoveException($"a piece of {what} is out of order");
            }

            if (_bytes.Length + content.Length > most)
            {
                throw new MoveException($"{what} has more than {most} bytes");
            }

            _bytes.Write(content);
            IsWhole = frame.Count == 1;
        }
    }
}
