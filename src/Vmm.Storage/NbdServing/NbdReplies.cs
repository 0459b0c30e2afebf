namespace Vmm.Storage.NbdServing;

/// <summary>
/// What a connection is to be sent, in its order: replies, each with its slot until it is sent. They go out in large pieces: many small
/// ones together, long ones in parts.
/// </summary>
internal sealed class NbdReplies(NbdSlots slots)
{
    private const int OutputBytes = 256 << 10;

    private readonly byte[] _output = new byte[OutputBytes];
    private readonly NbdSlot[] _replies = new NbdSlot[NbdSlots.Depth]; // a ring
    private int _from, _to, _first;

    /// <summary>Replies that are not in the output as a whole.</summary>
    internal int Count { get; private set; }

    /// <summary>Nothing is to be sent.</summary>
    internal bool IsEmpty => _from == _to && Count == 0;

    /// <summary>A request is over, and its error is set.</summary>
    internal void Add(NbdSlot slot)
    {
        slot.Moved = 0;
        _replies[(_first + Count++) % _replies.Length] = slot;
    }

    /// <summary>The bytes to send next; empty when there are none.</summary>
    internal ReadOnlySpan<byte> Next()
    {
        if (_from == _to)
        {
            (_from, _to) = (0, 0);
        }

        while (Count > 0 && _output.Length - _to >= NbdWire.ReplyBytes && TryAppend(_replies[_first]))
        {
            slots.Return(Take());
        }

        return _output.AsSpan(_from, _to - _from);
    }

    /// <summary>So many of them were sent.</summary>
    internal void Sent(int count) => _from += count;

    /// <summary>Nobody reads them any more.</summary>
    internal void Drop()
    {
        while (Count > 0)
        {
            slots.Return(Take());
        }
    }

    // False when the output is full, and the rest of the reply has to wait.
    private bool TryAppend(NbdSlot slot)
    {
        if (slot.Moved == 0)
        {
            NbdWire.WriteReply(_output.AsSpan(_to), slot.Error, slot.Asked.Cookie);
            _to += NbdWire.ReplyBytes;
            slot.Moved = NbdWire.ReplyBytes;
        }

        while (slot.Moved < slot.ReplyLength && _to < _output.Length)
        {
            Span<byte> data = slots.Data(slot, slot.Moved - NbdWire.ReplyBytes);
            int length = Math.Min(data.Length, _output.Length - _to);
            data[..length].CopyTo(_output.AsSpan(_to));
            _to += length;
            slot.Moved += (uint)length;
        }

        return slot.Moved == slot.ReplyLength;
    }

    private NbdSlot Take()
    {
        NbdSlot slot = _replies[_first];
        _first = (_first + 1) % _replies.Length;
        Count--;
        return slot;
    }
}
