using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.NbdServing;

/// <summary>
/// One connection of a client. Nothing that a client does takes more than the memory that is here from the beginning, and a client that
/// reads no replies is read no requests. Belongs to the server's thread.
/// </summary>
internal sealed class NbdServerSession : IBlockOwner, IDisposable
{
    private const int InputBytes = 64 << 10, DirectFrom = 16 << 10, MostReceives = 16;

    private readonly IoLoop _loop;
    private readonly IBlockNode _node;
    private readonly NbdServed _served;
    private readonly UnixStream _stream;
    private readonly NbdHandshake _handshake;
    private readonly NbdSlots _slots;
    private readonly IoPoll _poll;
    private readonly NbdReplies _replies;
    private readonly byte[] _input = new byte[InputBytes];
    private int _inputFrom, _inputTo, _atDisk;
    private NbdSlot? _filling; // its data comes
    private uint _skip; // bytes of it to be dropped, as it is refused
    private NbdRequest? _waiting; // for a slot, or for memory
    private bool _isOver;

    internal NbdServerSession(IoLoop loop, IBlockNode node, NbdServed served, UnixStream stream)
    {
        (_loop, _node, _served, _stream) = (loop, node, served, stream);
        _handshake = new NbdHandshake(served);
        _slots = new NbdSlots(this, loop);
        _replies = new NbdReplies(_slots);
        _poll = new IoPoll((_, events) => OnSocket(events));
        loop.Add(_poll);
    }

    /// <summary>The client said that it goes, after it was served.</summary>
    internal bool SaidGoodbye { get; private set; }

    /// <summary>The client is gone.</summary>
    internal bool IsAbandoned => _isOver;

    /// <summary>The connection is over, and the disk has nothing of it any more.</summary>
    internal bool IsEnded => _isOver && _atDisk == 0;

    /// <summary>The client is not listened to any more; what the disk has of it is waited for.</summary>
    internal void Abandon()
    {
        if (_isOver)
        {
            return;
        }

        _isOver = true;
        _loop.CallOff(_poll);
        _stream.Dispose();
        _replies.Drop();
        if (_filling is { } filling)
        {
            _slots.Return(filling);
            _filling = null;
        }
    }

    /// <summary>Sends what can be sent, and goes on with what came. Once a round.</summary>
    internal void Serve()
    {
        bool again = !_isOver;
        while (again)
        {
            Send();
            Consume();
            int replies = _replies.Count;
            Send();
            again = !_isOver && _waiting is not null && _replies.Count < replies; // there is room now
        }
    }

    /// <summary>Before the thread sleeps: what the socket is waited for.</summary>
    internal void Watch()
    {
        if (!_isOver)
        {
            _loop.CallOff(_poll);
            _loop.WatchOnce(_poll, _stream,
                (WantsInput ? PollEvents.Readable : PollEvents.None) | (HasOutput ? PollEvents.Writable : PollEvents.None));
        }
    }

    /// <summary>The disk is through with a request.</summary>
    void IBlockOwner.Completed(BlockRequest request, DiskStatus status)
    {
        _atDisk--;
        NbdSlot slot = _slots[request.Token];
        slot.Error = status switch
        {
            DiskStatus.Ok => 0,
            DiskStatus.NoSpace => NbdWire.NoSpace,
            DiskStatus.NotSupported => NbdWire.NotSupported,
            _ => NbdWire.IoError,
        };
        if (_isOver)
        {
            _slots.Return(slot);
        }
        else
        {
            _replies.Add(slot);
        }
    }

    public void Dispose()
    {
        Abandon();
        if (_atDisk > 0)
        {
            throw new InvalidOperationException("The disk still has requests of the connection.");
        }

        _loop.Remove(_poll);
        _slots.Dispose();
    }

    // While a request waits for memory, nothing is read: the client waits, too.
    private bool WantsInput => _waiting is null && _handshake.Output.IsEmpty;

    private bool HasOutput => !_replies.IsEmpty || !_handshake.Output.IsEmpty;

    private bool IsNegotiating => _handshake.State is NbdHandshakeState.Flags or NbdHandshakeState.Options;

    private void OnSocket(PollEvents events)
    {
        if (_isOver)
        {
            return;
        }

        if ((events & ~(PollEvents.Readable | PollEvents.Writable)) != 0 && !WantsInput)
        {
            Abandon(); // it is gone, and nothing that it said is left
            return;
        }

        if ((events & ~PollEvents.Writable) != 0)
        {
            Receive();
        }
    }

    private void Receive()
    {
        for (int i = 0; i < MostReceives && !_isOver && WantsInput; i++)
        {
            Span<byte> into = _filling is { } slot && _skip == 0 && _inputFrom == _inputTo && slot.Asked.Length - slot.Moved >= DirectFrom
                ? _slots.Data(slot, slot.Moved)
                : default;
            bool isDirect = !into.IsEmpty;
            if (!isDirect)
            {
                _input.AsSpan(_inputFrom, _inputTo - _inputFrom).CopyTo(_input);
                (_inputFrom, _inputTo) = (0, _inputTo - _inputFrom);
                into = _input.AsSpan(_inputTo);
            }

            int received = _stream.Receive(into);
            if (received < 0)
            {
                return; // nothing now
            }

            if (received == 0)
            {
                Abandon();
                return;
            }

            if (isDirect)
            {
                TakeData(received);
            }
            else
            {
                _inputTo += received;
            }

            Consume();
        }
    }

    // Goes as far as what came allows.
    private void Consume()
    {
        while (!_isOver && ConsumeSome())
        {
        }
    }

    private bool ConsumeSome()
    {
        ReadOnlySpan<byte> input = _input.AsSpan(_inputFrom, _inputTo - _inputFrom);
        if (IsNegotiating)
        {
            int taken = _handshake.Take(input);
            _inputFrom += taken;
            Send(); // an option is answered before the next one is looked at
            if (_handshake.State == NbdHandshakeState.Over && !_isOver)
            {
                Abandon();
            }

            return taken > 0;
        }

        if (_handshake.State == NbdHandshakeState.Over || !_handshake.Output.IsEmpty)
        {
            return false;
        }

        if (_waiting is { } waiting)
        {
            _waiting = null;
            return Begin(waiting);
        }

        if (_filling is { } slot)
        {
            return !input.IsEmpty && Fill(slot, input);
        }

        if (input.Length < NbdWire.RequestBytes)
        {
            return false;
        }

        _inputFrom += NbdWire.RequestBytes;
        bool isRequest = NbdRequest.TryRead(input, out NbdRequest request);
        if (isRequest && request.Kind != NbdRequestKind.Disconnect)
        {
            return Begin(request);
        }

        SaidGoodbye = isRequest;
        Abandon();
        return false;
    }

    private bool Fill(NbdSlot slot, ReadOnlySpan<byte> input)
    {
        int length = (int)Math.Min((uint)input.Length, _skip > 0 ? _skip : slot.Asked.Length - slot.Moved);
        if (_skip == 0)
        {
            Span<byte> into = _slots.Data(slot, slot.Moved);
            length = Math.Min(length, into.Length);
            input[..length].CopyTo(into);
        }

        _inputFrom += length;
        TakeData(length);
        return true;
    }

    // So much more of a write's data is there, or was dropped.
    private void TakeData(int length)
    {
        NbdSlot slot = _filling!;
        if (_skip > 0)
        {
            _skip -= (uint)length;
            if (_skip == 0)
            {
                _filling = null;
                _replies.Add(slot);
            }

            return;
        }

        slot.Moved += (uint)length;
        if (slot.Moved == slot.Asked.Length)
        {
            _filling = null;
            Submit(slot);
        }
    }

    // A request begins. False when it has to wait for a slot, or for memory.
    private bool Begin(in NbdRequest request)
    {
        uint error = _served.WhyNot(request);
        bool moves = request.Kind is NbdRequestKind.Read or NbdRequestKind.Write;
        if (_slots.TryTake(request, error == 0 && moves ? request.Length : 0) is not { } slot)
        {
            _waiting = request;
            return false;
        }

        slot.Error = error;
        bool isEmpty = request.Length == 0 && request.Kind != NbdRequestKind.Flush;
        if (request.Kind == NbdRequestKind.Write && request.Length > 0)
        {
            (_filling, _skip) = (slot, error == 0 ? 0 : request.Length);
        }
        else if (error != 0 || isEmpty)
        {
            _replies.Add(slot);
        }
        else
        {
            Submit(slot);
        }

        return true;
    }

    private void Submit(NbdSlot slot)
    {
        NbdRequest asked = slot.Asked;
        BlockKind kind = asked.Kind switch
        {
            NbdRequestKind.Read => BlockKind.Read,
            NbdRequestKind.Write => BlockKind.Write,
            NbdRequestKind.Trim => BlockKind.Discard,
            NbdRequestKind.WriteZeroes => BlockKind.WriteZeroes,
            _ => BlockKind.Flush,
        };
        bool isFlush = kind == BlockKind.Flush;
        BlockFlags flags = (kind is BlockKind.Write or BlockKind.WriteZeroes && (asked.Flags & NbdWire.Fua) != 0 ? BlockFlags.Fua : 0)
            | (kind == BlockKind.WriteZeroes && (asked.Flags & NbdWire.NoHole) == 0 ? BlockFlags.MayUnmap : 0);
        slot.Request.Prepare(kind, isFlush ? 0 : asked.Offset, isFlush ? 0 : asked.Length, flags);
        if (kind is BlockKind.Read or BlockKind.Write)
        {
            _slots.SetData(slot);
        }

        _atDisk++;
        _node.Submit(slot.Request);
    }

    private void Send()
    {
        while (!_isOver && !_handshake.Output.IsEmpty)
        {
            int sent = _stream.Send(_handshake.Output);
            if (sent <= 0)
            {
                EndIfBroken(sent);
                return;
            }

            _handshake.Sent(sent);
        }

        while (!_isOver)
        {
            ReadOnlySpan<byte> next = _replies.Next();
            if (next.IsEmpty)
            {
                return;
            }

            int sent = _stream.Send(next);
            if (sent <= 0)
            {
                EndIfBroken(sent);
                return;
            }

            _replies.Sent(sent);
        }
    }

    private void EndIfBroken(int sent)
    {
        if (sent < 0)
        {
            Abandon();
        }
    }
}
